"""Four fake stages and a real gateway on real sockets in this process, without torch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import numpy as np
from hart.v1 import (
    ar_generator_pb2,
    ar_generator_pb2_grpc,
    decoder_pb2,
    decoder_pb2_grpc,
    images_pb2_grpc,
    safety_pb2,
    safety_pb2_grpc,
    stage_pb2,
    stage_pb2_grpc,
    tensor_pb2,
    text_encoder_pb2,
    text_encoder_pb2_grpc,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from common.stages import STAGES
from gateway.assembly import build
from gateway.config import GatewaySettings
from runtime import tensors
from runtime.calls.pool import Pool, Replica
from runtime.observability.telemetry import Telemetry
from runtime.server.app import App
from runtime.settings import ProcessSettings

SCALES = (1, 2, 4)
PNG = b"\x89PNG\r\n\x1a\n a picture"
Hook = Callable[[Any], Awaitable[None]]
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Replicas = dict[str, list["FakeStage"]]
Prepare = Callable[[Replicas], None]


def latent(value: float) -> tensor_pb2.Tensor:
    return tensors.from_numpy(np.full((2, 4, 4), value, np.float32))


@dataclass
class FakeStage(
    safety_pb2_grpc.SafetyServicer,
    text_encoder_pb2_grpc.TextEncoderServicer,
    ar_generator_pb2_grpc.ArGeneratorServicer,
    decoder_pb2_grpc.DecoderServicer,
    stage_pb2_grpc.StageServicer,
):
    """One replica of one stage. `before` is awaited before each answer, `at_scale` before each scale's event."""

    stage: str
    verdict: safety_pb2.Verdict = field(
        default_factory=lambda: safety_pb2.Verdict(action=safety_pb2.SAFETY_ACTION_ALLOW, policy_version="p1")
    )
    before: Hook | None = None
    at_scale: Callable[[Any, int], Awaitable[None]] | None = None
    scale_seconds: float = 0.0
    """Delay before each scale: time for the preview of the previous one."""
    load: float = 0.0
    queue_limit: int = 0
    side: int = 64
    image: bytes = PNG
    received: list[Any] = field(default_factory=list)
    cancelled: int = 0
    left: list[float] = field(default_factory=list)
    port: int = 0
    digest: str = ""
    required_digests: dict[str, str] = field(default_factory=dict)

    async def _enter(self, request: Any, context: Context) -> None:
        self.received.append(request)
        self.left.append(context.time_remaining())
        try:
            if self.before:
                await self.before(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    @property
    def model(self) -> stage_pb2.ModelIdentity:
        return stage_pb2.ModelIdentity(name="tiny", digest=self.digest or f"digest of {self.stage}")

    async def Check(self, request: safety_pb2.CheckRequest, context: Context) -> safety_pb2.CheckResponse:
        await self._enter(request, context)
        return safety_pb2.CheckResponse(verdict=self.verdict, model=self.model, timing=timing())

    async def Encode(
        self, request: text_encoder_pb2.EncodeRequest, context: Context
    ) -> text_encoder_pb2.EncodeResponse:
        await self._enter(request, context)
        return text_encoder_pb2.EncodeResponse(
            context=tensors.from_numpy(np.zeros((3, 2), np.float32)),
            mask=tensors.from_numpy(np.array([True, True, False])),
            positions=tensors.from_numpy(np.array([0, 1, 1], np.int64)),
            prompt_tokens=2,
            prompt_truncated="long" in request.prompt,
            unfamiliar_words=[w for w in request.prompt.split() if w.startswith("zy")],
            model=self.model,
            timing=timing(),
        )

    async def Generate(
        self, request: ar_generator_pb2.GenerateLatentRequest, context: Context
    ) -> AsyncIterator[ar_generator_pb2.GenerateLatentEvent]:
        await self._enter(request, context)
        event = ar_generator_pb2.GenerateLatentEvent
        if not request.result_only:
            yield event(admitted=ar_generator_pb2.Admitted(scales=len(SCALES)))
        try:
            for scale, side in enumerate(SCALES):
                if self.at_scale:
                    await self.at_scale(request, scale)
                await asyncio.sleep(self.scale_seconds)
                progress = ar_generator_pb2.LatentProgress(scale=scale, side=side, scales=len(SCALES))
                if request.preview_every and (scale + 1) % request.preview_every == 0:
                    progress.latent.CopyFrom(latent(scale))
                if not request.result_only:
                    yield event(progress=progress)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        spent = timing()
        spent.scales.extend(stage_pb2.ScaleTiming(scale=scale, side=side) for scale, side in enumerate(SCALES))
        result = ar_generator_pb2.LatentResult(
            latent=latent(request.seed % 97), model=self.model, timing=spent, sampling=used_by(request)
        )
        yield event(result=result)

    async def Decode(self, request: decoder_pb2.DecodeRequest, context: Context) -> decoder_pb2.DecodeResponse:
        await self._enter(request, context)
        side = request.side if request.HasField("side") else 64
        return decoder_pb2.DecodeResponse(
            image=self.image + request.latent.data[:4],
            format=request.encoding.format,
            width=side,
            height=side,
            model=self.model,
            timing=timing(),
        )

    async def Describe(
        self, request: stage_pb2.StageDescribeRequest, context: Context
    ) -> stage_pb2.StageDescribeResponse:
        return stage_pb2.StageDescribeResponse(
            stage=self.stage,
            model=self.model,
            required_digests=self.required_digests,
            ready=True,
            load=stage_pb2.StageLoad(load=self.load),
            limits=stage_pb2.StageLimits(queue_limit=self.queue_limit, concurrency=1 if self.queue_limit else 0),
            shape=stage_pb2.ModelShape(scales=SCALES, width=self.side, height=self.side)
            if self.stage in ("ar_generator", "decoder")
            else stage_pb2.ModelShape(context_tokens=3, context_width=2),
            policies=["harm"] if self.stage == "safety" else [],
            policy_version="p1" if self.stage == "safety" else "",
            example_prompts=["a red heart"] if self.stage == "text_encoder" else [],
            sampling_defaults=DEFAULTS if self.stage == "ar_generator" else None,
        )


DEFAULTS = stage_pb2.SamplingParams(guidance=4.5, more_smooth=True, residual_temperature=1.0)


def used_by(request: Any) -> stage_pb2.SamplingParams:
    """The request's sampling parameters, absent ones filled in with the defaults."""
    used = stage_pb2.SamplingParams()
    used.CopyFrom(DEFAULTS)
    for name in used.DESCRIPTOR.fields_by_name:
        if request.HasField(name):
            setattr(used, name, getattr(request, name))
    return used


def timing() -> stage_pb2.Timing:
    return stage_pb2.Timing(queue_seconds=0.0001, compute_seconds=0.0002, total_seconds=0.0004, batch_size=1)


REGISTER: dict[str, Any] = {
    "safety": safety_pb2_grpc.add_SafetyServicer_to_server,
    "text_encoder": text_encoder_pb2_grpc.add_TextEncoderServicer_to_server,
    "ar_generator": ar_generator_pb2_grpc.add_ArGeneratorServicer_to_server,
    "decoder": decoder_pb2_grpc.add_DecoderServicer_to_server,
}


class GatewayApp(App):
    """An App that records the pools which it closes at its end."""

    def __init__(self, settings: GatewaySettings, stage: str, telemetry: Telemetry) -> None:
        super().__init__(settings, stage, telemetry)
        self.pools: list[Pool] = []

    def on_stop(self, function: Callable[[], Awaitable[object]]) -> None:
        pool = getattr(function, "__self__", None)
        if isinstance(pool, Pool):
            self.pools.append(pool)
        super().on_stop(function)


@dataclass
class RunningGateway:
    """A running gateway and its fake stages."""

    app: GatewayApp
    stages: dict[str, list[FakeStage]]
    apps: dict[int, App]
    channel: grpc.aio.Channel
    spans: InMemorySpanExporter

    @property
    def stub(self) -> images_pb2_grpc.ImagesAsyncStub:
        return images_pb2_grpc.ImagesStub(self.channel)

    def stage(self, name: str) -> FakeStage:
        """The only replica, or the first."""
        return self.stages[name][0]

    @property
    def inflight(self) -> int:
        """Ongoing requests, from the gateway's metrics."""
        load = self.app.telemetry.registry.get_sample_value("hart_load", {"stage": "gateway"}) or 0.0
        settings = self.app.settings
        assert isinstance(settings, GatewaySettings)
        return round(load * settings.max_ongoing_requests)

    @property
    def replicas(self) -> list[Replica]:
        """All replicas of the gateway's pools."""
        return [replica for pool in self.app.pools for replica in pool.replicas]

    async def end(self, fake: FakeStage) -> None:
        """Stop a replica."""
        await self.apps.pop(fake.port).stop()


@asynccontextmanager
async def running_gateway(
    replicas: Mapping[str, int] | None = None,
    prepare: Prepare = lambda stages: None,
    **settings: Any,
) -> AsyncIterator[RunningGateway]:
    """A running gateway with `replicas` of each fake stage (default 1)."""
    stages = {stage: [FakeStage(stage) for _ in range((replicas or {}).get(stage, 1))] for stage in STAGES}
    prepare(stages)
    apps = dict(await asyncio.gather(*(serve(fake) for fakes in stages.values() for fake in fakes)))
    where = {stage: ",".join(f"127.0.0.1:{fake.port}" for fake in fakes) for stage, fakes in stages.items()}
    spans = InMemorySpanExporter()
    chosen = GatewaySettings.load(**{"port": 0, **where, **settings})
    app = GatewayApp(chosen, "gateway", Telemetry("gateway", span_exporter=spans))
    build(app, chosen)
    await app.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{app.port}")
    try:
        yield RunningGateway(app, stages, apps, channel, spans)
    finally:
        await channel.close()
        await asyncio.gather(app.stop(), *(running.stop() for running in apps.values()))


async def serve(fake: FakeStage) -> tuple[int, App]:
    """Serve a fake stage on its own socket. Returns its port and app."""
    app = App(ProcessSettings(port=0), fake.stage, Telemetry(fake.stage))
    app.add(REGISTER[fake.stage], fake)
    app.add(stage_pb2_grpc.add_StageServicer_to_server, fake)
    await app.start()
    fake.port = app.port
    return app.port, app


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Return when the condition holds. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
