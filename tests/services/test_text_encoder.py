"""services.text_encoder: the text encoder stage over real sockets."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hart.v1 import stage_pb2, stage_pb2_grpc, text_encoder_pb2, text_encoder_pb2_grpc

from benchmarks.harness.checkpoint import PROMPTS
from runtime import tensors
from services.text_encoder.assembly import build
from services.text_encoder.cache import Cache
from services.text_encoder.config import TextEncoderSettings
from tests.services.support import refusal, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")


def encode(stage: Any, prompt: str) -> Any:
    stub = text_encoder_pb2_grpc.TextEncoderStub(stage.channel)
    return stub.Encode(text_encoder_pb2.EncodeRequest(prompt=prompt))


async def test_conditioning_equals_that_of_the_local_model(stages: SimpleNamespace, pipeline: Any) -> None:
    answer = await encode(stages.text_encoder, "a yellow sun")
    own = pipeline.text_encoder.encode(["a yellow sun"])
    context = tensors.to_numpy(answer.context, "context")
    np.testing.assert_array_equal(context, own.conditioning.context[0].numpy())
    np.testing.assert_array_equal(tensors.to_numpy(answer.mask, "mask"), own.conditioning.mask[0].numpy())
    np.testing.assert_array_equal(tensors.to_numpy(answer.positions, "p"), own.conditioning.positions[0].numpy())


async def test_batch_peers_do_not_change_a_prompts_conditioning(folder: str, pipeline: Any) -> None:
    prompts = [f"{prompt} number {i}" for i, prompt in enumerate(PROMPTS)]
    settings = TextEncoderSettings(checkpoint=folder, port=0, max_batch=len(prompts), batch_wait_timeout_seconds=1)
    async with serving("text_encoder", build, settings) as stage:
        answers = await asyncio.gather(*(encode(stage, prompt) for prompt in prompts))
    assert max(answer.timing.batch_size for answer in answers) > 1
    for prompt, answer in zip(prompts, answers, strict=True):
        own = pipeline.text_encoder.encode([prompt]).conditioning.context[0].numpy()
        np.testing.assert_allclose(tensors.to_numpy(answer.context, "context"), own, atol=1e-5)


async def test_repeated_prompt_is_served_from_the_cache(stages: SimpleNamespace) -> None:
    hits = 'hart_cache_hits_total{stage="text_encoder"}'
    before = await stages.text_encoder.metric(hits)
    first = await encode(stages.text_encoder, "a prompt of its own")
    again = await encode(stages.text_encoder, "  a prompt of its own ")
    assert (first.timing.cached, again.timing.cached) == (False, True)
    assert again.timing.compute_seconds == 0
    assert again.context == first.context
    assert await stages.text_encoder.metric(hits) == before + 1


async def test_long_prompt_is_truncated_and_reported(stages: SimpleNamespace) -> None:
    answer = await encode(stages.text_encoder, "a very long prompt " * 20)
    assert answer.prompt_truncated
    assert answer.prompt_tokens == 8


async def test_special_tokens_in_a_prompt_are_plain_text(stages: SimpleNamespace, pipeline: Any) -> None:
    for word in pipeline.text_encoder.tokenizer.all_special_tokens:
        answer = await encode(stages.text_encoder, word)
        assert tensors.to_numpy(answer.mask, "mask").sum() == answer.prompt_tokens > 1


async def test_words_out_of_vocabulary_are_named_once_each(stages: SimpleNamespace) -> None:
    answer = await encode(stages.text_encoder, "A RED zebra, a blue-tree and a zebra's red-zebra")
    assert list(answer.unfamiliar_words) == ["zebra", "and", "zebra's", "red-zebra"]


async def test_float16_context_is_sent_as_float16(folder: str) -> None:
    settings = TextEncoderSettings(checkpoint=folder, port=0, dtype="float16", cache_bytes=0)
    async with serving("text_encoder", build, settings) as stage:
        answer = await encode(stage, "a red heart")
        assert tensors.to_numpy(answer.context, "context").dtype == np.float16
        assert not (await encode(stage, "a red heart")).timing.cached


@pytest.mark.parametrize("prompt", ["", "\t", "x" * 2001])
async def test_prompt_out_of_bounds_is_refused_by_name(stages: SimpleNamespace, prompt: str) -> None:
    assert await refusal(encode(stages.text_encoder, prompt)) == ("INVALID_ARGUMENT", {"prompt"})


async def test_describe_reports_context_shape_and_example_prompts(stages: SimpleNamespace) -> None:
    stub = stage_pb2_grpc.StageStub(stages.text_encoder.channel)
    described = await stub.Describe(stage_pb2.StageDescribeRequest())
    assert (described.shape.context_tokens, described.shape.context_width) == (8, 24)
    assert tuple(described.example_prompts) == PROMPTS


async def test_cache_evicts_the_least_recently_used_beyond_its_bytes() -> None:
    cache: Cache[str, int] = Cache(10)
    for number, key in enumerate("abc"):
        cache.put(key, number, 3)
    assert cache.get("a") == 0
    cache.put("d", 3, 3)
    assert cache.get("b") is None
    assert cache.get("a") == 0
    cache.put("huge", 4, 11)
    assert cache.get("huge") is None
    cache.put("a", 5, 4)
    assert (cache.size, cache.get("a"), len(cache)) == (10, 5, 3)
