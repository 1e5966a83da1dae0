"""A stage on a real server in this process, with a tiny checkpoint."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from runtime.observability.telemetry import Telemetry
from runtime.server.app import App


def assemblies() -> dict[str, tuple[Callable[[App, Any], None], Any]]:
    """What builds each stage, and its settings."""
    from services.ar_generator import assembly as ar_generator
    from services.decoder import assembly as decoder
    from services.safety import assembly as safety
    from services.text_encoder import assembly as text_encoder

    return {
        "safety": (safety.build, safety.SafetySettings),
        "text_encoder": (text_encoder.build, text_encoder.TextEncoderSettings),
        "ar_generator": (ar_generator.build, ar_generator.ArGeneratorSettings),
        "decoder": (decoder.build, decoder.DecoderSettings),
    }


async def refusal(call: Any) -> tuple[str, set[str]]:
    """The status code that a call ends with, and the fields that its BadRequest names."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _ended(call)
    status = rpc_status.from_call(caught.value)
    fields = set()
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            fields |= {violation.field for violation in bad.field_violations}
    return caught.value.code().name, fields


async def _ended(call: Any) -> None:
    if not hasattr(call, "__aiter__"):
        await call
        return
    async for _ in call:
        pass


@dataclass
class Stage:
    """A running stage: its app, a channel to it and the spans it made."""

    app: App
    channel: grpc.aio.Channel
    spans: InMemorySpanExporter

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.app.port}"

    async def metrics(self) -> str:
        """What Prometheus would read."""
        url = f"http://127.0.0.1:{self.app.metrics_port}/metrics"
        return await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())

    async def metric(self, series: str) -> float:
        """The value of the series that begins so; 0 where there is none."""
        lines = [line for line in (await self.metrics()).splitlines() if line.startswith(series)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@asynccontextmanager
async def serving(name: str, build: Callable[[App, Any], None], settings: Any) -> AsyncIterator[Stage]:
    """Starts the stage and waits until it is ready; ends it afterwards."""
    spans = InMemorySpanExporter()
    app = App(settings, name, Telemetry(name, span_exporter=spans))
    build(app, settings)
    await app.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{app.port}")
    try:
        yield Stage(app, channel, spans)
    finally:
        await channel.close()
        await app.stop()
