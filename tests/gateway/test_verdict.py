"""gateway.request.pipeline: no generation without a verdict that allows it. Fake stages on real sockets."""

import asyncio

import grpc
import pytest
from hart.v1 import images_pb2, safety_pb2

from tests.gateway.calls import holding, refused, request
from tests.gateway.support import running_gateway, until

UNSAFE = safety_pb2.Verdict(unsafe=True, action=safety_pb2.SAFETY_ACTION_REFUSE, policy_version="p1", violated=["harm"])


async def test_unsafe_prompt_is_refused_before_generation() -> None:
    async with running_gateway() as running:
        running.stage("safety").verdict = UNSAFE
        code, info, text = await refused(running.stub.Generate(request(prompt="something bad")))
        assert (code, info.reason, info.domain) == (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_UNSAFE", "hart")
        assert "harm" in text
        assert "something bad" not in text + str(info)
        assert not running.stage("ar_generator").received
        assert not running.stage("decoder").received


async def test_generation_waits_for_the_verdict() -> None:
    async with running_gateway() as running:
        release = asyncio.Event()
        running.stage("safety").before = holding(release)
        call = running.stub.Generate(request())
        await until(lambda: running.stage("text_encoder").received)
        await asyncio.sleep(0.1)
        assert not running.stage("ar_generator").received
        release.set()
        await call
        assert running.stage("ar_generator").received


@pytest.mark.parametrize(
    "verdict",
    [
        safety_pb2.Verdict(unsafe=True),
        safety_pb2.Verdict(unsafe=True, action=safety_pb2.SAFETY_ACTION_ALLOW),
        safety_pb2.Verdict(),
        safety_pb2.Verdict(unsafe=True, action=safety_pb2.SAFETY_ACTION_REPLACE, replacement_prompt=" "),
    ],
    ids=["unspecified", "contradiction", "empty", "replaced by nothing"],
)
async def test_unclear_verdict_refuses(verdict: safety_pb2.Verdict) -> None:
    async with running_gateway() as running:
        running.stage("safety").verdict = verdict
        code, info, _ = await refused(running.stub.Generate(request()))
        assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_UNSAFE")
        assert not running.stage("ar_generator").received


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
async def test_non_finite_score_is_no_verdict(score: float) -> None:
    async with running_gateway() as running:
        running.stage("safety").verdict.scores.add(policy="harm", score=score)
        code, info, _ = await refused(running.stub.Generate(request()))
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.INTERNAL, "safety")
        assert len(running.stage("safety").received) == 1
        assert not running.stage("ar_generator").received


async def test_replacement_prompt_is_generated_and_recorded() -> None:
    async with running_gateway() as running:
        running.stage("safety").verdict = safety_pb2.Verdict(
            unsafe=True, action=safety_pb2.SAFETY_ACTION_REPLACE, replacement_prompt="a red heart", violated=["harm"]
        )
        report = (await running.stub.Generate(request(prompt="something bad"))).report
        assert running.stage("text_encoder").received[-1].prompt == "a red heart"
        assert running.stage("decoder").received[0].recipe.prompt == "a red heart"
        assert report.warnings[0].code == images_pb2.WARNING_CODE_PROMPT_REPLACED
        assert report.verdict.unsafe
        assert "something bad" not in str(report)
