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
    """The build function and the settings class of each stage."""
    from services.ar_generator import assembly as ar_generator
    from services.ar_generator.config import ArGeneratorSettings
    from services.decoder import assembly as decoder
    from services.decoder.config import DecoderSettings
    from services.safety import assembly as safety
    from services.safety.config import SafetySettings
    from services.text_encoder import assembly as text_encoder
    from services.text_encoder.config import TextEncoderSettings

    return {
        "safety": (safety.build, SafetySettings),
        "text_encoder": (text_encoder.build, TextEncoderSettings),
        "ar_generator": (ar_generator.build, ArGeneratorSettings),
        "decoder": (decoder.build, DecoderSettings),
    }


async def refusal(call: Any) -> tuple[str, set[str]]:
    """The status code of a failed call and the fields in its BadRequest."""
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
    """A running stage: its app, a channel to it and its finished spans."""

    app: App
    channel: grpc.aio.Channel
    spans: InMemorySpanExporter

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.app.port}"

    async def metrics(self) -> str:
        """The text that Prometheus scrapes."""
        url = f"http://127.0.0.1:{self.app.metrics_port}/metrics"
        return await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())

    async def metric(self, series: str) -> float:
        """The sum of the series with this prefix; 0 if there is none."""
        lines = [line for line in (await self.metrics()).splitlines() if line.startswith(series)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@asynccontextmanager
async def serving(name: str, build: Callable[[App, Any], None], settings: Any) -> AsyncIterator[Stage]:
    """Start the stage, wait until it is ready, and stop it at the end."""
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
