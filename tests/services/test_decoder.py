"""services.decoder: the decoder stage over real sockets."""

from __future__ import annotations

import asyncio
import io
import threading
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from hart.v1 import decoder_pb2, decoder_pb2_grpc, stage_pb2, stage_pb2_grpc, tensor_pb2
from PIL import Image

from model.quantizer import downsample
from runtime import tensors
from runtime.observability.telemetry import Telemetry
from services.decoder.assembly import build
from services.decoder.config import DecoderSettings
from services.decoder.image_encoder import ImageEncoder
from tests.recipes import read_recipe
from tests.services.support import refusal, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")
SHAPE = (8, 4, 4)
FP32 = tensor_pb2.DATA_TYPE_FP32


def latent(seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def decode(stages: SimpleNamespace, array: np.ndarray[Any, Any] | None = None, **fields: Any) -> Any:
    stub = decoder_pb2_grpc.DecoderStub(stages.decoder.channel)
    fields.setdefault("latent", tensors.from_numpy(latent() if array is None else array))
    return stub.Decode(decoder_pb2.DecodeRequest(**fields))


def pixels_of(answer: Any) -> np.ndarray[Any, Any]:
    return tensors.to_numpy(answer.pixels, "pixels")


async def test_pixels_equal_those_of_the_local_model(stages: SimpleNamespace, pipeline: Any) -> None:
    answer = await decode(stages, raw_pixels=True)
    np.testing.assert_array_equal(pixels_of(answer), pipeline.pixels_of(torch.from_numpy(latent())))
    assert (answer.width, answer.height) == (8, 8)


async def test_batched_latents_decode_as_they_do_alone(folder: str, pipeline: Any) -> None:
    settings = DecoderSettings(checkpoint=folder, port=0, batch_wait_timeout_seconds=1)
    async with serving("decoder", build, settings) as stage:
        shared = SimpleNamespace(decoder=stage)
        answers = await asyncio.gather(*(decode(shared, latent(seed), raw_pixels=True) for seed in range(8)))
    assert max(answer.timing.batch_size for answer in answers) > 1
    for seed, answer in enumerate(answers):
        alone = pipeline.pixels_of(torch.from_numpy(latent(seed))).astype(int)
        assert abs(pixels_of(answer).astype(int) - alone).max() <= 1


async def test_png_holds_exactly_the_pixels(stages: SimpleNamespace, pipeline: Any) -> None:
    answer = await decode(stages)
    assert answer.format == decoder_pb2.IMAGE_FORMAT_PNG
    image = Image.open(io.BytesIO(answer.image))
    np.testing.assert_array_equal(np.asarray(image), pipeline.pixels_of(torch.from_numpy(latent())))


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP"])
async def test_each_format_is_encoded_with_its_recipe(stages: SimpleNamespace, name: str) -> None:
    format = decoder_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{name}")
    recipe = decoder_pb2.Recipe(
        prompt="ein rotes Herz ❤", seed=2**64 - 1, guidance=4.5, more_smooth=True, top_p=0.25, versions={"gateway": "1"}
    )
    recipe.model.name, recipe.model.digest = "tiny", "abc"
    answer = await decode(stages, encoding={"format": format}, recipe=recipe)
    assert answer.format == format
    assert Image.open(io.BytesIO(answer.image)).format == name
    found = read_recipe(answer.image)
    assert found is not None
    assert (found.prompt, found.seed, found.top_p, found.digest) == (recipe.prompt, recipe.seed, 0.25, "abc")
    assert found.versions.keys() == {"gateway", "hart", "torch"}
    assert read_recipe((await decode(stages, encoding={"format": format})).image) is None


async def test_lower_quality_makes_a_smaller_file(stages: SimpleNamespace) -> None:
    sizes = [
        len((await decode(stages, encoding={"format": decoder_pb2.IMAGE_FORMAT_JPEG, "quality": quality})).image)
        for quality in (10, 92)
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(("side", "width"), [(1, 2), (2, 2), (3, 4), (5, 4), (6, 6), (8, 8)])
async def test_preview_is_decoded_from_the_area_reduced_latent(
    stages: SimpleNamespace, pipeline: Any, side: int, width: int
) -> None:
    answer = await decode(stages, raw_pixels=True, side=side)
    small = downsample(torch.from_numpy(latent())[None], width // 2)[0]
    np.testing.assert_array_equal(pixels_of(answer), pipeline.pixels_of(small))
    assert answer.width == width


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"side": 0}, {"side"}),
        ({"side": 9}, {"side"}),
        ({"raw_pixels": False}, {"raw_pixels"}),
        ({"raw_pixels": True, "recipe": decoder_pb2.Recipe()}, {"recipe"}),
        ({"encoding": {"quality": 50}}, {"encoding.quality"}),
        ({"encoding": {"format": 2, "quality": 0}, "side": 0}, {"encoding.quality", "side"}),
        ({"encoding": {"format": 3, "quality": 101}}, {"encoding.quality"}),
        ({"encoding": {"format": 9}}, {"encoding.format"}),
        ({"recipe": decoder_pb2.Recipe(guidance=float("nan"))}, {"recipe.guidance"}),
        ({"recipe": decoder_pb2.Recipe(prompt="x" * 70_000)}, {"recipe"}),
        ({"latent": tensor_pb2.Tensor()}, {"latent.dtype"}),
        ({"latent": tensors.from_numpy(latent().astype(np.float16))}, {"latent.dtype"}),
        ({"latent": tensors.from_numpy(latent()[:, :3])}, {"latent.shape"}),
        ({"latent": tensors.from_numpy(np.full(SHAPE, np.nan, np.float32))}, {"latent.data"}),
        ({"latent": tensor_pb2.Tensor(dtype=FP32, shape=SHAPE, data=b"short")}, {"latent.data"}),
        ({"latent": tensor_pb2.Tensor(dtype=FP32, shape=[2**31, 4, 4])}, {"latent.shape"}),
    ],
)
async def test_invalid_decode_field_is_refused_by_name(
    stages: SimpleNamespace, fields: dict[str, Any], named: set[str]
) -> None:
    assert await refusal(decode(stages, **fields)) == ("INVALID_ARGUMENT", named)


async def test_overflowing_latent_fails_its_own_request_alone(stages: SimpleNamespace) -> None:
    huge, good = await asyncio.gather(refusal(decode(stages, np.full(SHAPE, 3e38, np.float32))), decode(stages))
    assert huge == ("INTERNAL", set())
    assert good.image


async def test_full_image_encoder_refuses_before_decoding(stages: SimpleNamespace) -> None:
    files = ImageEncoder("decoder", threads=1, limit=0, metrics=Telemetry("decoder").metrics)
    with pytest.raises(Exception, match="HART_ENCODE_THREADS"):
        files.require_room()


async def test_pending_encodes_count_as_load_queue_and_shed(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def encode(*_: object, **__: object) -> bytes:
        release.wait(60)
        return b"a file"

    monkeypatch.setattr("services.decoder.image_encoder.encode", encode)
    settings = DecoderSettings(checkpoint=folder, port=0, encode_threads=1, max_queued_requests=3)
    async with serving("decoder", build, settings) as stage:
        describe = stage_pb2_grpc.StageStub(stage.channel).Describe
        shared = SimpleNamespace(decoder=stage)
        calls = [asyncio.ensure_future(decode(shared)) for _ in range(3)]
        try:
            async with asyncio.timeout(60):
                while (load := (await describe(stage_pb2.StageDescribeRequest())).load).load < 3:
                    await asyncio.sleep(0.01)
            assert (load.load, load.queued, load.running) == (3, 2, 1)
            assert await stage.metric("hart_load{") == 3
            assert await stage.metric('hart_queue_depth{queue="files"') == 2
            with pytest.raises(grpc.aio.AioRpcError, match="HART_ENCODE_THREADS"):
                await decode(shared)
            assert await stage.metric('hart_shed_total{reason="encoder_full"') == 1
        finally:
            release.set()
        assert [answer.image for answer in await asyncio.gather(*calls)] == [b"a file"] * 3
        assert await stage.metric("hart_load{") == 0


async def test_encode_wait_is_queue_time_and_encoding_is_compute_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]

    def encode(*_: object, **__: object) -> bytes:
        clock[0] += 1.0
        return b"a file"

    monkeypatch.setattr("services.decoder.image_encoder.encode", encode)
    monkeypatch.setattr("services.decoder.image_encoder.time", SimpleNamespace(monotonic=lambda: clock[0]))
    release = threading.Event()
    files = ImageEncoder("decoder", threads=1, limit=9, metrics=Telemetry("decoder").metrics)
    files._pool.submit(release.wait, 60)  # until all three wait
    made = [asyncio.ensure_future(files.make(np.zeros((2, 2, 3), np.uint8), "PNG", 92, None)) for _ in range(3)]
    while files._held < 3:
        await asyncio.sleep(0)
    release.set()
    times = [(file.queue_seconds, file.compute_seconds) for file in await asyncio.gather(*made)]
    assert times == [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)]
    await files.close()


async def test_describe_reports_sizes_and_scales(stages: SimpleNamespace) -> None:
    described = await stage_pb2_grpc.StageStub(stages.decoder.channel).Describe(stage_pb2.StageDescribeRequest())
    assert (described.shape.width, described.shape.height, described.shape.latent_channels) == (8, 8, 8)
    assert list(described.shape.scales) == [1, 2, 3, 4]
