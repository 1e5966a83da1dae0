"""services.ar_generator: the generator stage over real sockets with a tiny model."""

from __future__ import annotations

import asyncio
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from hart.v1 import ar_generator_pb2, ar_generator_pb2_grpc, stage_pb2, stage_pb2_grpc, tensor_pb2

from model.checkpoint import Checkpoint
from model.noise import SeededNoise
from model.params import SamplingParams
from runtime import tensors
from runtime.settings import SettingsError
from services.ar_generator.assembly import build
from services.ar_generator.config import ArGeneratorSettings
from services.ar_generator.engine import GeneratorEngine
from tests.services.support import refusal, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")
SCALES = 4
PROMPTS = ("a red heart", "a blue house", "a green tree")


def request(pipeline: Any, prompt: str = "a red heart", **fields: Any) -> ar_generator_pb2.GenerateLatentRequest:
    conditioning = pipeline.text_encoder.encode([prompt]).conditioning
    for name in ("context", "mask", "positions"):
        fields.setdefault(name, tensors.from_numpy(getattr(conditioning, name)[0].numpy()))
    return ar_generator_pb2.GenerateLatentRequest(**fields)


def generate(stage: Any, asked: ar_generator_pb2.GenerateLatentRequest, **options: Any) -> Any:
    return ar_generator_pb2_grpc.ArGeneratorStub(stage.channel).Generate(asked, **options)


async def events_of(stage: Any, asked: ar_generator_pb2.GenerateLatentRequest) -> list[Any]:
    return [event async for event in generate(stage, asked)]


async def latent_of(stage: Any, asked: ar_generator_pb2.GenerateLatentRequest) -> np.ndarray[Any, Any]:
    events = await events_of(stage, asked)
    return tensors.to_numpy(events[-1].result.latent, "latent")


def own_latent(pipeline: Any, prompt: str, seed: int, params: SamplingParams) -> np.ndarray[Any, Any]:
    generator = pipeline.generator
    conditioning = pipeline.text_encoder.encode([prompt]).conditioning[0]
    state = generator.begin(conditioning, SeededNoise(seed), params)
    while state.scale < generator.scales:
        generator.advance([state])
    generator.release(state)
    latent: np.ndarray[Any, Any] = state.latent.numpy()
    return latent


async def test_events_are_in_order_with_a_latent_every_nth_scale(stages: SimpleNamespace, pipeline: Any) -> None:
    events = await events_of(stages.ar_generator, request(pipeline, preview_every=2))
    assert [event.WhichOneof("event") for event in events] == ["admitted", *["progress"] * SCALES, "result"]
    assert events[0].admitted.scales == SCALES
    progress = [event.progress for event in events[1:-1]]
    assert [(one.scale, one.side, one.scales) for one in progress] == [(0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 4, 4)]
    assert [one.HasField("latent") for one in progress] == [False, True, False, True]
    assert progress[-1].latent == events[-1].result.latent


async def test_result_only_request_gets_the_same_latent_without_progress(
    stages: SimpleNamespace, pipeline: Any
) -> None:
    events = await events_of(stages.ar_generator, request(pipeline, seed=5, result_only=True))
    assert [event.WhichOneof("event") for event in events] == ["result"]
    latent = tensors.to_numpy(events[-1].result.latent, "latent")
    np.testing.assert_array_equal(latent, own_latent(pipeline, "a red heart", 5, SamplingParams()))
    assert [one.scale for one in events[-1].result.timing.scales] == [0, 1, 2, 3]


@pytest.mark.parametrize("more_smooth", [True, False])
@pytest.mark.parametrize("top_p", [0.0, 0.5])
async def test_latent_equals_that_of_the_local_model(
    stages: SimpleNamespace, pipeline: Any, more_smooth: bool, top_p: float
) -> None:
    asked = request(pipeline, seed=2**64 - 1, guidance=3.0, more_smooth=more_smooth, top_p=top_p)
    latent = await latent_of(stages.ar_generator, asked)
    own = own_latent(pipeline, "a red heart", 2**64 - 1, SamplingParams(3.0, more_smooth, top_p))
    np.testing.assert_array_equal(latent, own)


async def test_absent_sampling_parameters_take_the_defaults(stages: SimpleNamespace, pipeline: Any) -> None:
    latent = await latent_of(stages.ar_generator, request(pipeline, seed=3))
    np.testing.assert_array_equal(latent, own_latent(pipeline, "a red heart", 3, SamplingParams()))


async def test_other_requests_in_a_batch_do_not_change_an_image(stages: SimpleNamespace, pipeline: Any) -> None:
    prompts = [PROMPTS[i % 3] for i in range(8)]
    asked = [request(pipeline, prompt, seed=i, more_smooth=False) for i, prompt in enumerate(prompts)]
    streams = await asyncio.gather(*(events_of(stages.ar_generator, one) for one in asked))
    assert max(events[-1].result.timing.batch_size for events in streams) > 1
    for i, (prompt, events) in enumerate(zip(prompts, streams, strict=True)):
        own = own_latent(pipeline, prompt, i, SamplingParams(more_smooth=False))
        np.testing.assert_allclose(tensors.to_numpy(events[-1].result.latent, "latent"), own, atol=1e-3)


async def test_timings_of_the_scales_add_up(stages: SimpleNamespace, pipeline: Any) -> None:
    timing = (await events_of(stages.ar_generator, request(pipeline)))[-1].result.timing
    assert [one.scale for one in timing.scales] == [0, 1, 2, 3]
    assert math.isclose(sum(one.duration_seconds for one in timing.scales), timing.compute_seconds)
    assert math.isclose(timing.queue_seconds + timing.compute_seconds, timing.total_seconds)
    starts = [one.start_seconds for one in timing.scales]
    assert starts == sorted(starts)
    assert await stages.ar_generator.metric('hart_scale_duration_seconds_count{scale="3"') >= 1


async def test_each_scale_is_a_child_span_of_the_call(stages: SimpleNamespace, pipeline: Any) -> None:
    await events_of(stages.ar_generator, request(pipeline, request_id="traced"))
    for _ in range(500):
        spans = stages.ar_generator.spans.get_finished_spans()
        servers = [span for span in spans if span.attributes.get("hart.request.id") == "traced"]
        if servers:
            break
        await asyncio.sleep(0.01)
    children = [span for span in spans if span.parent and span.parent.span_id == servers[0].context.span_id]
    assert {span.name for span in children} == {"queue", "batch", "compute"}
    assert [span.attributes["hart.scale"] for span in children if span.name == "batch"] == [0, 1, 2, 3]


async def test_cancelled_calls_release_their_slots(folder: str, pipeline: Any) -> None:
    settings = ArGeneratorSettings(checkpoint=folder, port=0, slots=2)
    async with serving("ar_generator", build, settings) as stage:
        stub = stage_pb2_grpc.StageStub(stage.channel)
        for i in range(30):
            call = generate(stage, request(pipeline, seed=i))
            for _ in range(i % 5):
                await call.read()
            call.cancel()
        for _ in range(500):
            load = (await stub.Describe(stage_pb2.StageDescribeRequest())).load
            if not load.queued and not load.running:
                break
            await asyncio.sleep(0.01)
        assert (load.queued, load.running) == (0, 0)
        latent = await latent_of(stage, request(pipeline, seed=3))
        np.testing.assert_array_equal(latent, own_latent(pipeline, "a red heart", 3, SamplingParams()))


async def test_requests_over_slots_and_queue_are_refused(folder: str, pipeline: Any) -> None:
    settings = ArGeneratorSettings(checkpoint=folder, port=0, slots=1, max_queued_requests=2)
    async with serving("ar_generator", build, settings) as stage:
        calls = [events_of(stage, request(pipeline, seed=i)) for i in range(12)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one for one in results if isinstance(one, grpc.aio.AioRpcError)]
        assert {one.code() for one in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(results) - len(refused) >= 2
        assert all(one[-1].WhichOneof("event") == "result" for one in results if isinstance(one, list))


async def test_overflowing_context_fails_its_own_request_alone(stages: SimpleNamespace, pipeline: Any) -> None:
    huge = tensors.from_numpy(np.full((8, 24), 3e38, np.float32))
    good = [events_of(stages.ar_generator, request(pipeline, seed=i, more_smooth=False)) for i in range(3)]
    bad, *rest = await asyncio.gather(refusal(generate(stages.ar_generator, request(pipeline, context=huge))), *good)
    assert bad == ("INTERNAL", set())
    for i, events in enumerate(rest):
        own = own_latent(pipeline, "a red heart", i, SamplingParams(more_smooth=False))
        np.testing.assert_allclose(tensors.to_numpy(events[-1].result.latent, "latent"), own, atol=1e-3)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"guidance": 20.5}, {"guidance"}),
        ({"guidance": float("nan"), "top_p": -0.1}, {"guidance", "top_p"}),
        ({"top_p": 1.5}, {"top_p"}),
        ({"preview_every": 5}, {"preview_every"}),
        ({"preview_every": 1, "result_only": True}, {"result_only"}),
        ({"context": tensor_pb2.Tensor()}, {"context.dtype"}),
        ({"context": tensors.from_numpy(np.zeros((8, 25), np.float32))}, {"context.shape"}),
        ({"context": tensors.from_numpy(np.full((8, 24), np.inf, np.float32))}, {"context.data"}),
        ({"mask": tensors.from_numpy(np.zeros(8, bool))}, {"mask.data"}),
        ({"mask": tensors.from_numpy(np.zeros(7, bool))}, {"mask.shape"}),
        ({"positions": tensors.from_numpy(np.full(8, 8, np.int64))}, {"positions.data"}),
        ({"positions": tensors.from_numpy(np.full(8, -2, np.int64))}, {"positions.data"}),
    ],
)
async def test_invalid_generation_field_is_refused_by_name(
    stages: SimpleNamespace, pipeline: Any, fields: dict[str, Any], named: set[str]
) -> None:
    assert await refusal(generate(stages.ar_generator, request(pipeline, **fields))) == ("INVALID_ARGUMENT", named)


async def test_too_short_deadline_ends_the_call(stages: SimpleNamespace, pipeline: Any) -> None:
    code, _ = await refusal(generate(stages.ar_generator, request(pipeline), timeout=0.001))
    assert code == "DEADLINE_EXCEEDED"


async def test_describe_reports_the_cost_of_each_scale(stages: SimpleNamespace) -> None:
    described = await stage_pb2_grpc.StageStub(stages.ar_generator.channel).Describe(stage_pb2.StageDescribeRequest())
    assert len(described.cost.scales) == SCALES
    assert [one.max_batch for one in described.cost.scales] == [8, 8, 7, 4]
    assert math.isclose(sum(scale.batch_seconds[1] for scale in described.cost.scales), described.cost.request_seconds)
    assert described.limits.concurrency == 8


async def test_describe_reports_the_required_digests(stages: SimpleNamespace, folder: str) -> None:
    described = await stage_pb2_grpc.StageStub(stages.ar_generator.channel).Describe(stage_pb2.StageDescribeRequest())
    checkpoint = Checkpoint.open(folder)
    assert dict(described.required_digests) == {
        "text_encoder": checkpoint.digest_of("text_encoder"),
        "decoder": checkpoint.digest_of("tokenizer"),
    }


async def test_required_digests_omit_missing_parts(folder: str, tmp_path: Path) -> None:
    for part in ("llm", "tokenizer"):
        shutil.copytree(Path(folder) / part, tmp_path / part)
    engine = GeneratorEngine(ArGeneratorSettings(checkpoint=str(tmp_path)))
    engine.load()
    assert engine.required_digests == {"decoder": Checkpoint.open(folder).digest_of("tokenizer")}


async def test_slots_follow_from_kv_cache_bytes(folder: str) -> None:
    one = GeneratorEngine(ArGeneratorSettings(checkpoint=folder)).slot_bytes
    engine = GeneratorEngine(ArGeneratorSettings(checkpoint=folder, kv_cache_bytes=3 * one + 1))
    assert engine.slots == 3
    with pytest.raises(SettingsError, match="HART_KV_CACHE_BYTES"):
        GeneratorEngine(ArGeneratorSettings(checkpoint=folder, kv_cache_bytes=one - 1))


async def test_max_batch_per_scale_follows_from_max_batched_tokens(folder: str) -> None:
    engine = GeneratorEngine(ArGeneratorSettings(checkpoint=folder, max_batched_tokens=32))
    assert engine.max_batch_per_scale == [4, 4, 1, 1]  # 8 context tokens, then 8, 18 and 32 rows of both branches


async def test_failed_batch_is_retried_image_by_image(folder: str) -> None:
    engine = GeneratorEngine(ArGeneratorSettings(checkpoint=folder, slots=3))
    engine.load()
    from services.ar_generator.engine import GenerationRequest

    mask = np.ones(8, bool)
    request = GenerationRequest(
        np.ones((8, 24), np.float32), mask, mask.cumsum() - 1, 1, SamplingParams(), preview_every=1
    )
    states = [engine.begin(request) for _ in range(3)]

    class Broken(SeededNoise):
        def draw(self, *args: Any) -> torch.Tensor:
            raise OSError("no noise")

        key = property(lambda self: self.draw())
        drawn: dict[int, torch.Tensor] = {}  # noqa: RUF012
        ahead = True

    states[1].noise = Broken.__new__(Broken)
    latents = engine.advance([(state, request) for state in states]).latents
    assert isinstance(latents[1], OSError)
    assert isinstance(latents[0], np.ndarray)
    assert isinstance(latents[2], np.ndarray)
    np.testing.assert_allclose(latents[0], latents[2], atol=1e-5)
    assert [state.scale for state in states] == [1, 0, 1]


async def test_failed_read_back_does_not_repeat_the_scale(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = GeneratorEngine(ArGeneratorSettings(checkpoint=folder, slots=2))
    engine.load()
    from services.ar_generator.engine import GenerationRequest

    mask = np.ones(8, bool)
    request = GenerationRequest(
        np.ones((8, 24), np.float32), mask, mask.cumsum() - 1, 1, SamplingParams(), preview_every=1
    )
    states = [engine.begin(request) for _ in range(2)]
    shown, failures = engine._shown, [MemoryError()]

    def once(*given: Any) -> Any:
        if failures:
            raise failures.pop()
        return shown(*given)

    monkeypatch.setattr(engine, "_shown", once)
    latents = engine.advance([(state, request) for state in states]).latents
    assert [state.scale for state in states] == [1, 1]
    assert isinstance(latents[0], np.ndarray)
    np.testing.assert_array_equal(latents[0], states[0].latent.numpy())
