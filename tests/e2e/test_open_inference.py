"""runtime.oip in each stage process, called by Triton's own clients: sync, asyncio, streams."""

import asyncio
import io
import queue
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from PIL import Image
from tritonclient.utils import InferenceServerException

from benchmarks.harness.checkpoint import UNSAFE_PROMPT
from benchmarks.harness.processes import STAGES, Cluster

T, D, Z, N = 8, 24, 8, 4
SCALES = 4
pytestmark = pytest.mark.usefixtures("survives")


@pytest.fixture(scope="module")
def servers(cluster: Cluster) -> Iterator[dict[str, triton.InferenceServerClient]]:
    found = {stage: triton.InferenceServerClient(cluster.stages[stage][0].address) for stage in STAGES}
    yield found
    for server in found.values():
        server.close()


def tensor(name: str, array: np.ndarray, datatype: str) -> triton.InferInput:
    found = triton.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


def prompts(*texts: str) -> list[triton.InferInput]:
    return [tensor("prompt", np.array([text.encode() for text in texts], object), "BYTES")]


def conditioning(server: triton.InferenceServerClient) -> list[triton.InferInput]:
    answer = server.infer("text_encoder", prompts("a red heart"))
    kinds = {"context": "FP32", "mask": "BOOL", "positions": "INT64"}
    return [tensor(name, answer.as_numpy(name), kind) for name, kind in kinds.items()]


def latents(count: int = 1) -> list[triton.InferInput]:
    return [tensor("latent", np.zeros((count, Z, N, N), np.float32), "FP32")]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_reports_its_metadata(servers: dict[str, triton.InferenceServerClient], stage: str) -> None:
    server = servers[stage]
    assert server.is_server_live()
    assert server.is_server_ready()
    assert server.is_model_ready(stage)
    assert server.get_server_metadata().name == f"hart-{stage}"
    metadata = server.get_model_metadata(stage)
    assert metadata.name == stage
    names = {
        "safety": (["prompt"], ["score", "unsafe"]),
        "text_encoder": (["prompt"], ["context", "mask", "positions"]),
        "ar_generator": (["context", "mask", "positions"], ["scale", "latent"]),
        "decoder": (["latent"], ["image"]),
    }[stage]
    assert ([t.name for t in metadata.inputs], [t.name for t in metadata.outputs]) == names


@pytest.mark.parametrize("stage", STAGES)
def test_unknown_model_is_not_found(servers: dict[str, triton.InferenceServerClient], stage: str) -> None:
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        servers[stage].get_model_metadata("other")


def test_safety_scores_a_batch_of_prompts(servers: dict[str, triton.InferenceServerClient]) -> None:
    answer = servers["safety"].infer("safety", prompts("a red heart", UNSAFE_PROMPT))
    assert answer.as_numpy("score").shape == (2, 2)
    assert answer.as_numpy("unsafe").tolist() == [False, True]


def test_text_encoder_returns_the_documented_tensors(servers: dict[str, triton.InferenceServerClient]) -> None:
    answer = servers["text_encoder"].infer("text_encoder", prompts("a red heart", "a blue house"))
    assert answer.as_numpy("context").shape == (2, T, D)
    assert answer.as_numpy("mask").dtype == np.bool_
    assert answer.as_numpy("positions").dtype == np.int64


def test_decoder_returns_pixels_and_encoded_images(servers: dict[str, triton.InferenceServerClient]) -> None:
    server = servers["decoder"]
    raw = server.infer("decoder", latents(2)).as_numpy("image")
    assert (raw.shape, raw.dtype) == ((2, 16 * N // 8, 16 * N // 8, 3), np.uint8)
    for format in ("png", "JPEG", "webp"):
        files = server.infer("decoder", latents(2), parameters={"format": format}).as_numpy("image")
        for file, pixels in zip(files, raw, strict=True):
            with Image.open(io.BytesIO(file)) as image:
                assert image.size == pixels.shape[:2]
                if format == "png":
                    assert np.array_equal(np.asarray(image), pixels)
    small = server.infer("decoder", latents(), parameters={"side": 2}).as_numpy("image")
    assert small.shape == (1, 2, 2, 3)


def drawn(server: Any, inputs: list[triton.InferInput], **parameters: Any) -> list[Any]:
    answers: queue.Queue[Any] = queue.Queue()
    server.start_stream(partial(lambda answers, result, error: answers.put((result, error)), answers))
    server.async_stream_infer("ar_generator", inputs, request_id="one", parameters={"seed": "7", **parameters})
    found = []
    while True:
        result, error = answers.get(timeout=20)
        if error is not None:
            server.stop_stream()
            raise error
        found.append(result)
        if result.get_response().parameters["triton_final_response"].bool_param:
            server.stop_stream()
            return found


def test_generator_streams_its_scales_and_the_latent_last(servers: dict[str, triton.InferenceServerClient]) -> None:
    results = drawn(servers["ar_generator"], conditioning(servers["text_encoder"]))
    assert [int(result.as_numpy("scale")[0]) for result in results] == list(range(SCALES))
    assert [result.as_numpy("latent") is not None for result in results] == [False] * (SCALES - 1) + [True]
    assert results[-1].as_numpy("latent").shape == (1, Z, N, N)
    assert np.isfinite(results[-1].as_numpy("latent")).all()


def test_previews_are_intermediate_latents(servers: dict[str, triton.InferenceServerClient]) -> None:
    results = drawn(servers["ar_generator"], conditioning(servers["text_encoder"]), preview_every=2)
    assert [result.as_numpy("latent") is not None for result in results] == [False, True, False, True]


def test_every_parameter_of_the_generator_has_an_effect(servers: dict[str, triton.InferenceServerClient]) -> None:
    inputs = conditioning(servers["text_encoder"])
    changes: list[dict[str, Any]] = [
        {},
        {"seed": "8"},
        {"guidance": 0.0},
        {"more_smooth": False},
        {"more_smooth": False, "top_p": 0.01},
    ]
    found = [drawn(servers["ar_generator"], inputs, **change)[-1].as_numpy("latent").tobytes() for change in changes]
    assert len(set(found)) == len(changes)


async def test_asyncio_client_infers_and_streams(
    cluster: Cluster, servers: dict[str, triton.InferenceServerClient]
) -> None:
    async with triton_aio.InferenceServerClient(cluster.stages["safety"][0].address) as server:
        assert await server.is_model_ready("safety")
        answer = await server.infer("safety", prompts(UNSAFE_PROMPT))
        assert answer.as_numpy("unsafe").tolist() == [True]
    inputs = conditioning(servers["text_encoder"])

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for seed in ("1", "2"):
            yield {"model_name": "ar_generator", "inputs": inputs, "request_id": seed, "parameters": {"seed": seed}}

    async with triton_aio.InferenceServerClient(cluster.stages["ar_generator"][0].address) as server:
        latest = {}
        async with asyncio.timeout(20):
            async for result, error in server.stream_infer(requests()):
                assert error is None
                latest[result.get_response().id] = result.as_numpy("latent")
    assert all(latest[seed].shape == (1, Z, N, N) for seed in ("1", "2"))
    assert not np.array_equal(latest["1"], latest["2"])


WRONG = {
    "safety": [
        ("two axes", [tensor("prompt", np.array([[b"x"]], object), "BYTES")]),
        ("another datatype", [tensor("prompt", np.zeros(1, np.int32), "INT32")]),
        ("another name", [tensor("text", np.array([b"x"], object), "BYTES")]),
        ("an empty prompt", prompts("")),
        ("a prompt that is too long", prompts("x" * 2001)),
        ("no UTF-8", [tensor("prompt", np.array([b"\xff\xfe"], object), "BYTES")]),
        ("more prompts than a batch", prompts(*["x"] * 100)),
    ],
    "text_encoder": [
        ("no input", []),
        ("twice the same", prompts("x") + prompts("x")),
    ],
    "ar_generator": [
        ("a missing input", [tensor("context", np.zeros((1, T, D), np.float32), "FP32")]),
        (
            "another width",
            [
                tensor("context", np.zeros((1, T, D + 1), np.float32), "FP32"),
                tensor("mask", np.ones((1, T), bool), "BOOL"),
                tensor("positions", np.zeros((1, T), np.int64), "INT64"),
            ],
        ),
        (
            "NaN",
            [
                tensor("context", np.full((1, T, D), np.nan, np.float32), "FP32"),
                tensor("mask", np.ones((1, T), bool), "BOOL"),
                tensor("positions", np.zeros((1, T), np.int64), "INT64"),
            ],
        ),
    ],
    "decoder": [
        ("another side", [tensor("latent", np.zeros((1, Z, N, N + 1), np.float32), "FP32")]),
        ("no batch axis", [tensor("latent", np.zeros((Z, N, N), np.float32), "FP32")]),
        ("half precision", [tensor("latent", np.zeros((1, Z, N, N), np.float16), "FP16")]),
        ("more latents than a batch", latents(50)),
    ],
}


@pytest.mark.parametrize(
    ("stage", "wrong"), [(s, w) for s, wrongs in WRONG.items() for w in wrongs], ids=lambda x: str(x[0])[:30]
)
def test_invalid_inputs_are_refused(
    servers: dict[str, triton.InferenceServerClient], stage: str, wrong: tuple[str, list[triton.InferInput]]
) -> None:
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        servers[stage].infer(stage, wrong[1], parameters={"seed": "7"} if stage == "ar_generator" else None)


@pytest.mark.parametrize(
    "parameters",
    [
        {"seed": "-1"}, {"seed": "x"}, {"seed": str(2**64)}, {"guidance": 21.0}, {"guidance": float("nan")},
        {"top_p": 1.5}, {"preview_every": 5}, {"colour": "red"}, {"more_smooth": 1},
    ],
    ids=str,
)  # fmt: skip
def test_invalid_parameters_are_refused(
    servers: dict[str, triton.InferenceServerClient], parameters: dict[str, Any]
) -> None:
    with pytest.raises(InferenceServerException, match=r"INVALID_ARGUMENT|parameters"):
        drawn(servers["ar_generator"], conditioning(servers["text_encoder"]), **parameters)
