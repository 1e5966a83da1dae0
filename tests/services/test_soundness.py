"""A model that is broken does not start; one that breaks later leaves service; one odd request changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hart.v1 import safety_pb2, safety_pb2_grpc

from runtime.settings import SettingsError
from services.ar_generator.config import ArGeneratorSettings
from services.ar_generator.engine import GeneratorEngine
from services.decoder.config import DecoderSettings
from services.decoder.engine import DecoderEngine
from services.safety import assembly as safety
from services.safety.config import SafetySettings
from services.safety.engine import SafetyEngine
from services.text_encoder.config import TextEncoderSettings
from services.text_encoder.engine import TextEncoderEngine
from tests.model.slow.test_finite import break_first
from tests.services.support import Stage, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")
ENGINES: list[tuple[Any, Any, str, str, str]] = [
    (SafetyEngine, SafetySettings, "safety/model.safetensors", "v_proj", "the safety model's answer"),
    (TextEncoderEngine, TextEncoderSettings, "text_encoder/model.safetensors", "q_proj", "the text conditioning"),
    (GeneratorEngine, ArGeneratorSettings, "llm/ema_model.bin", "head", "the latent"),
    (DecoderEngine, DecoderSettings, "tokenizer/model.safetensors", "decoder.conv_out", "the image"),
]


@pytest.mark.parametrize(("engine", "settings", "file", "weight", "result"), ENGINES)
async def test_a_stage_with_a_broken_weight_does_not_start(
    tiny_checkpoint: Path, tmp_path: Path, engine: Any, settings: Any, file: str, weight: str, result: str
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "broken"))
    path = folder / file
    if path.suffix == ".safetensors":
        break_first(path, lambda key: weight in key)
    else:
        weights = torch.load(path)
        name = next(key for key in sorted(weights) if weight in key)
        weights[name].view(-1)[0] = float("nan")
        torch.save(weights, path)
    with pytest.raises(SettingsError, match=f"HART_CHECKPOINT='.*/broken': {result} is not finite"):
        engine(settings(checkpoint=str(folder))).load()


async def test_a_network_of_zeros_does_not_start(tiny_checkpoint: Path) -> None:
    engine = SafetyEngine(SafetySettings(checkpoint=str(tiny_checkpoint)))
    engine.load()
    for weight in engine._classifier.network.parameters():
        weight.data.zero_()
    with pytest.raises(Exception, match="prefers neither answer"):
        engine._self_test.learn()


@asynccontextmanager
async def watched(folder: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Stage, Any, list[bool]]]:
    """A safety stage, the network in it, and how often it asked for its end."""
    found: list[Any] = []
    load, ended = SafetyEngine.load, []

    def noting(engine: SafetyEngine) -> Any:
        found.append(engine)
        return load(engine)

    monkeypatch.setattr(SafetyEngine, "load", noting)
    async with serving("safety", safety.build, SafetySettings(checkpoint=folder, port=0)) as stage:
        stage.app.device_thread.on_fatal = lambda: ended.append(True)
        yield stage, found[0]._classifier.network, ended


async def code_of(stage: Stage, prompt: str) -> str:
    try:
        await safety_pb2_grpc.SafetyStub(stage.channel).Check(safety_pb2.CheckRequest(prompt=prompt))
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def test_one_odd_prompt_fails_alone(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(folder, monkeypatch) as (stage, network, ended):
        word = network.get_input_embeddings().weight
        with torch.no_grad():
            word[len(word) - 1] = float("nan")  # "outrageous", which the self-test's prompt has not
        assert await code_of(stage, "an outrageous idea") == "INTERNAL"
        assert await code_of(stage, "a red heart") == "OK"
        health = health_pb2_grpc.HealthStub(stage.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service="hart.v1.Safety"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert not ended


async def test_a_model_that_breaks_while_it_serves_leaves_service(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(folder, monkeypatch) as (stage, network, ended):
        with torch.no_grad():
            next(network.parameters()).fill_(float("nan"))
        assert await code_of(stage, "a red heart") == "UNAVAILABLE"  # so that another replica is asked
        assert ended == [True]


async def test_a_generator_whose_slots_are_all_taken_repeats_its_self_test(folder: str) -> None:
    engine = GeneratorEngine(ArGeneratorSettings(checkpoint=folder, slots=1))
    engine.load()
    wish = engine._known_request()
    wish.context[:] = 3e38
    state = engine.begin(wish)
    for _ in range(engine.scales):
        [latent] = engine.advance([(state, wish)]).latents
    assert str(latent).startswith("the latent is not finite")
    engine.release(state)
    assert engine._generator.free == [0]
