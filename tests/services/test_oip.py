"""services.*.oip: each stage by the Open Inference Protocol, called by Triton's own clients."""

from __future__ import annotations

import asyncio
import io
import queue
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as sync
import tritonclient.grpc.aio as aio
from PIL import Image
from tritonclient.utils import InferenceServerException

from benchmarks.harness.checkpoint import UNSAFE_PROMPT

pytestmark = pytest.mark.asyncio(loop_scope="session")
NAMES = ("safety", "text_encoder", "ar_generator", "decoder")
SEED = 7


def inputs(**arrays: np.ndarray[Any, Any]) -> list[Any]:
    types = {"f": "FP32", "b": "BOOL", "i": "INT64", "O": "BYTES"}
    made = []
    for name, array in arrays.items():
        one = sync.InferInput(name, list(array.shape), types[array.dtype.kind])
        one.set_data_from_numpy(array)
        made.append(one)
    return made


def prompts(*texts: str) -> np.ndarray[Any, Any]:
    return np.array([text.encode() for text in texts], object)


def conditioning(pipeline: Any, prompt: str = "a red heart") -> dict[str, np.ndarray[Any, Any]]:
    found = pipeline.text_encoder.encode([prompt]).conditioning
    return {name: getattr(found, name).numpy() for name in ("context", "mask", "positions")}


async def call(stage: Any, name: str, given: list[Any], parameters: dict[str, Any] | None = None) -> Any:
    """Call by the synchronous client in a thread: the server runs on this event loop."""

    def infer() -> Any:
        with sync.InferenceServerClient(stage.address) as client:
            return client.infer(name, given, parameters=parameters)

    return await asyncio.to_thread(infer)


async def stream(stage: Any, given: list[Any], parameters: dict[str, Any]) -> list[Any]:
    """All responses of the synchronous client's stream."""

    def drive() -> list[Any]:
        answers: queue.Queue[Any] = queue.Queue()
        with sync.InferenceServerClient(stage.address) as client:
            client.start_stream(callback=lambda result, error: answers.put(error or result))
            client.async_stream_infer("ar_generator", given, parameters=parameters, enable_empty_final_response=True)
            found = []
            while True:
                answer = answers.get(timeout=60)
                found.append(answer)
                if isinstance(answer, Exception) or is_last(answer):
                    return found

    return await asyncio.to_thread(drive)


def is_last(answer: Any) -> bool:
    return bool(answer.get_response().parameters["triton_final_response"].bool_param)


@pytest.mark.parametrize("name", NAMES)
async def test_stage_reports_readiness_and_model_metadata(stages: SimpleNamespace, name: str) -> None:
    async with aio.InferenceServerClient(getattr(stages, name).address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(name)
        metadata = await client.get_model_metadata(name)
    shapes = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in (*metadata.inputs, *metadata.outputs)}
    expected = {
        "safety": {"prompt": ("BYTES", [-1]), "score": ("FP32", [-1, 2]), "unsafe": ("BOOL", [-1])},
        "text_encoder": {
            "prompt": ("BYTES", [-1]),
            "context": ("FP32", [-1, 8, 24]),
            "mask": ("BOOL", [-1, 8]),
            "positions": ("INT64", [-1, 8]),
        },
        "ar_generator": {
            "context": ("FP32", [1, 8, 24]),
            "mask": ("BOOL", [1, 8]),
            "positions": ("INT64", [1, 8]),
            "scale": ("INT32", [1]),
            "latent": ("FP32", [1, 8, 4, 4]),
        },
        "decoder": {"latent": ("FP32", [-1, 8, 4, 4]), "image": ("UINT8", [-1, -1, -1, 3])},
    }
    assert shapes == expected[name]


async def test_safety_scores_a_batch_of_prompts(stages: SimpleNamespace) -> None:
    answer = await call(stages.safety, "safety", inputs(prompt=prompts("a red heart", UNSAFE_PROMPT)))
    assert answer.as_numpy("unsafe").tolist() == [False, True]
    scores = answer.as_numpy("score")
    assert scores.shape == (2, 2)
    assert scores[0, 0] < 0.5 < scores[1, 0]


async def test_four_stages_by_the_aio_client_give_the_local_image(stages: SimpleNamespace, pipeline: Any) -> None:
    async with aio.InferenceServerClient(stages.text_encoder.address) as client:
        encoded = await client.infer("text_encoder", inputs(prompt=prompts("a blue house")))
    given = inputs(**{name: encoded.as_numpy(name) for name in ("context", "mask", "positions")})
    parameters = {"seed": str(SEED), "guidance": 4.5, "more_smooth": True, "preview_every": 1}

    async def requests() -> Any:
        yield {"model_name": "ar_generator", "inputs": given, "parameters": parameters}

    scales, latents, finals = [], [], []
    async with aio.InferenceServerClient(stages.ar_generator.address) as client:
        async for result, error in client.stream_infer(requests()):
            assert error is None
            scales.append(int(result.as_numpy("scale")[0]))
            latents.append(result.as_numpy("latent"))
            finals.append(is_last(result))
    assert scales == [0, 1, 2, 3]
    assert finals == [False, False, False, True]
    async with aio.InferenceServerClient(stages.decoder.address) as client:
        decoded = await client.infer("decoder", inputs(latent=latents[-1]))
    image = pipeline.draw("a blue house", SEED)
    np.testing.assert_array_equal(decoded.as_numpy("image")[0], image.pixels)


async def test_sync_stream_carries_a_latent_in_the_last_response_only(stages: SimpleNamespace, pipeline: Any) -> None:
    answers = await stream(stages.ar_generator, inputs(**conditioning(pipeline)), {"seed": "1"})
    assert [answer.as_numpy("latent") is not None for answer in answers] == [False, False, False, True]


async def test_generator_unary_call_returns_the_last_scale(stages: SimpleNamespace, pipeline: Any) -> None:
    answer = await call(stages.ar_generator, "ar_generator", inputs(**conditioning(pipeline)), {"seed": "1"})
    assert answer.as_numpy("scale").tolist() == [3]
    assert answer.as_numpy("latent").shape == (1, 8, 4, 4)


async def test_decoder_returns_encoded_images_for_a_format(stages: SimpleNamespace) -> None:
    latents = np.random.default_rng(0).standard_normal((3, 8, 4, 4)).astype(np.float32)
    answer = await call(stages.decoder, "decoder", inputs(latent=latents), {"format": "webp", "quality": 80, "side": 4})
    files = answer.as_numpy("image")
    assert files.shape == (3,)
    for file in files:
        image = Image.open(io.BytesIO(file))
        assert (image.format, image.size) == ("WEBP", (4, 4))


def bad_calls(pipeline: Any) -> Iterator[tuple[str, list[Any], dict[str, Any], str]]:
    latent = np.zeros((1, 8, 4, 4), np.float32)
    given = conditioning(pipeline)
    yield "safety", inputs(prompt=prompts("")), {}, "prompt"
    yield "safety", inputs(prompt=prompts(*["a"] * 9)), {}, "at most 8"
    yield "safety", inputs(prompt=np.array([b"\xff\xfe"], object)), {}, "UTF-8"
    yield "safety", inputs(prompt=prompts("a").reshape(1, 1)), {}, "shape"
    yield "safety", inputs(prompt=np.zeros(1, np.float32)), {}, "datatype"
    yield "text_encoder", inputs(prompt=prompts("x" * 2001)), {}, "2000"
    yield "text_encoder", inputs(prompt=prompts("a")), {"format": "PNG"}, "unknown parameter"
    yield "decoder", inputs(latent=latent[:, :7]), {}, "shape"
    yield "decoder", inputs(latent=np.repeat(latent, 5, 0)), {}, "at most 4"
    yield "decoder", inputs(latent=np.full_like(latent, np.nan)), {}, "finite"
    yield "decoder", inputs(latent=latent), {"format": "GIF"}, "parameters[format]"
    yield "decoder", inputs(latent=latent), {"quality": 80}, "parameters[quality]"
    yield "decoder", inputs(latent=latent), {"side": 0}, "parameters[side]"
    yield "ar_generator", inputs(**given), {}, "parameters[seed]"
    yield "ar_generator", inputs(**given), {"seed": str(2**64)}, "parameters[seed]"
    yield "ar_generator", inputs(**given), {"seed": "-1"}, "parameters[seed]"
    yield "ar_generator", inputs(**given), {"seed": "1", "guidance": 21.0}, "parameters[guidance]"
    yield "ar_generator", inputs(**given), {"seed": "1", "preview_every": -1}, "parameters[preview_every]"
    yield "ar_generator", inputs(**{**given, "positions": given["positions"] + 8}), {"seed": "1"}, "positions"
    yield "ar_generator", inputs(**{**given, "mask": given["mask"][:, :4]}), {"seed": "1"}, "shape"


async def test_invalid_tensor_or_parameter_is_refused_by_name(stages: SimpleNamespace, pipeline: Any) -> None:
    for name, given, parameters, said in bad_calls(pipeline):
        with pytest.raises(InferenceServerException) as caught:
            await call(getattr(stages, name), name, given, parameters)
        assert "INVALID_ARGUMENT" in str(caught.value.status()), (name, said, str(caught.value))
        assert said in caught.value.message(), (name, said)
    for name in NAMES:
        async with aio.InferenceServerClient(getattr(stages, name).address) as client:
            assert await client.is_model_ready(name)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("safety", {"prompt": np.array([b"a"] * 9, object)}, "at most 8"),
        ("text_encoder", {"prompt": np.array([b"a"] * 9, object)}, "at most 8"),
        ("decoder", {"latent": np.zeros((5, 8, 4, 4), np.float32)}, "at most 4"),
    ],
)
async def test_oversized_batch_is_refused_before_tensors_are_read(
    stages: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, name: str, given: dict[str, Any], said: str
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr("runtime.oip.codec.decode_raw", read)
    with pytest.raises(InferenceServerException) as caught:
        await call(getattr(stages, name), name, inputs(**given), {})
    assert said in caught.value.message()


async def test_invalid_stream_request_fails_on_the_stream(stages: SimpleNamespace, pipeline: Any) -> None:
    (answer,) = await stream(stages.ar_generator, inputs(**conditioning(pipeline)), {"seed": "x"})
    assert "parameters[seed]" in str(answer)
