"""The most calls at the same time in one process. Knows no caller, and does not count health checks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtime.errors import Overloaded
from runtime.interceptor import Call
from runtime.telemetry import Telemetry

RETRY_SECONDS = 1.0
HEALTH_CALLS = 2_000
"""Calls above the limit that gRPC itself lets in: health and reflection, which are never refused for others' work, and
those which are being refused."""


class Crowd:
    """A guard that refuses one call more than `limit`."""

    def __init__(self, telemetry: Telemetry, limit: int) -> None:
        self._telemetry = telemetry
        self._limit = limit
        self.inside = 0

    @asynccontextmanager
    async def guard(self, call: Call) -> AsyncIterator[None]:
        """Around a call. Raises Overloaded naming the knob."""
        if self.inside >= self._limit:
            self._telemetry.metrics.shed.add(reason="max_concurrent_calls")
            raise Overloaded(self._telemetry.stage, "HART_MAX_CONCURRENT_CALLS", RETRY_SECONDS)
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
