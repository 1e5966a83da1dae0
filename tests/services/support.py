"""A stage on a real server in this process, with a tiny checkpoint."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from runtime.server import App
from runtime.telemetry import Telemetry


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
