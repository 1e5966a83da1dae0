"""services.safety: the safety stage over real sockets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hart.v1 import safety_pb2, safety_pb2_grpc, stage_pb2, stage_pb2_grpc

from benchmarks.harness.checkpoint import OUTRAGEOUS, POLICIES, UNSAFE_PROMPT
from model.errors import NotFiniteError
from runtime.settings import SettingsError
from services.safety.assembly import build
from services.safety.config import SafetySettings
from services.safety.engine import SafetyEngine
from tests.services.support import refusal, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")


def check(stage: Any, prompt: str) -> Any:
    return safety_pb2_grpc.SafetyStub(stage.channel).Check(safety_pb2.CheckRequest(prompt=prompt))


async def test_verdict_allows_or_refuses_with_the_violated_policy(stages: SimpleNamespace) -> None:
    safe = (await check(stages.safety, "a red heart")).verdict
    assert (safe.unsafe, safe.action, list(safe.violated)) == (False, safety_pb2.SAFETY_ACTION_ALLOW, [])
    unsafe = (await check(stages.safety, UNSAFE_PROMPT)).verdict
    assert (unsafe.unsafe, unsafe.action) == (True, safety_pb2.SAFETY_ACTION_REFUSE)
    assert list(unsafe.violated) == ["dangerous_content"]
    assert [score.policy for score in unsafe.scores] == list(POLICIES)
    assert not unsafe.HasField("replacement_prompt")


async def test_every_violated_policy_is_named(stages: SimpleNamespace) -> None:
    verdict = (await check(stages.safety, f"an {OUTRAGEOUS} idea")).verdict
    assert set(verdict.violated) == set(POLICIES)


async def test_settings_choose_replacement_and_threshold(folder: str) -> None:
    settings = SafetySettings(
        checkpoint=folder, port=0, unsafe_action="replace", replacement_prompt=" A blue bird. ", threshold=0.01
    )
    async with serving("safety", build, settings) as stage:
        verdict = (await check(stage, "a red heart")).verdict  # scores 0.06
        assert verdict.action == safety_pb2.SAFETY_ACTION_REPLACE
        assert verdict.replacement_prompt == "A blue bird."
        assert verdict.policy_version == "tiny-1@0.01"
        assert verdict.scores[0].threshold == 0.01


async def test_verdicts_are_counted_by_policy(stages: SimpleNamespace) -> None:
    series = 'hart_safety_verdicts_total{policy="harassment",stage="safety",verdict="unsafe"}'
    before = await stages.safety.metric(series)
    await check(stages.safety, OUTRAGEOUS)
    assert await stages.safety.metric(series) == before + 1


@pytest.mark.parametrize("prompt", ["", "  \n", "x" * 2001])
async def test_prompt_out_of_bounds_is_refused_by_name(stages: SimpleNamespace, prompt: str) -> None:
    assert await refusal(check(stages.safety, prompt)) == ("INVALID_ARGUMENT", {"prompt"})


async def test_non_finite_score_gives_no_verdict(folder: str) -> None:
    engine = SafetyEngine(SafetySettings(checkpoint=folder))
    engine.load()

    def overflow(_network: Any, _inputs: Any, output: Any) -> None:
        output.logits[0] = float("nan")

    with engine._classifier.network.register_forward_hook(overflow), pytest.raises(NotFiniteError):
        engine.run(["a", "b"])
    assert len(engine.run(["a", "b"])) == 2


async def test_describe_names_policies_and_their_version(stages: SimpleNamespace) -> None:
    stub = stage_pb2_grpc.StageStub(stages.safety.channel)
    described = await stub.Describe(stage_pb2.StageDescribeRequest())
    assert list(described.policies) == list(POLICIES)
    assert described.policy_version == "tiny-1"
    assert described.ready
    assert described.model.name == "tiny"
    assert len(described.model.digest) == 64
    assert described.cost.request_seconds > 0


async def test_unknown_device_is_refused_by_name(folder: str) -> None:
    with pytest.raises(SettingsError, match="HART_DEVICE='cuda:9': 'cuda:9' cannot be used"):
        SafetyEngine(SafetySettings(checkpoint=folder, device="cuda:9"))


async def test_replacement_prompt_obeys_the_prompt_limit() -> None:
    with pytest.raises(SettingsError, match="its 2000 characters stand for 36000"):
        SafetySettings.load(replacement_prompt="\ufdfa" * 2000)
