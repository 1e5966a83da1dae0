"""The most calls at the same time in one process. Knows no caller, and does not count health checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager

from runtime.errors import Overloaded
from runtime.observability.telemetry import Telemetry
from runtime.server.interceptor import CallInfo

RETRY_SECONDS = 1.0
BACKGROUND_CALLS = 200
"""Of background services (watches): they are bounded apart, so that they take no place of the work's."""
OTHER_CALLS = 2_000
"""Calls above the limit that gRPC itself lets in: health, reflection and background services, which are never refused
for others' work, and those which are being refused."""


class ConcurrencyLimiter:
    """A guard that refuses one call more than `limit`; `background` names the services that count apart."""

    def __init__(self, telemetry: Telemetry, limit: int, background: Container[str] = ()) -> None:
        self._telemetry = telemetry
        self._limits = {"HART_MAX_CONCURRENT_CALLS": limit, "background calls": BACKGROUND_CALLS}
        self._background = background
        self._inside: Counter[str] = Counter()

    @asynccontextmanager
    async def guard(self, call: CallInfo) -> AsyncIterator[None]:
        """Around a call. Raises Overloaded naming the knob."""
        kind = "background calls" if call.method.split("/")[0] in self._background else "HART_MAX_CONCURRENT_CALLS"
        if self._inside[kind] >= self._limits[kind]:
            self._telemetry.metrics.shed.add(reason="max_concurrent_calls")
            raise Overloaded(self._telemetry.stage, kind, RETRY_SECONDS)
        self._inside[kind] += 1
        try:
            yield
        finally:
            self._inside[kind] -= 1
