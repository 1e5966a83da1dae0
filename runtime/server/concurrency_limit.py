"""The most calls at the same time in one process. Knows no caller, and does not count health checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Container
from contextlib import ExitStack, asynccontextmanager

from runtime.errors import Overloaded
from runtime.observability.telemetry import Telemetry
from runtime.peers import Shares, most_of
from runtime.server.interceptor import CallInfo

KNOB = "HART_MAX_CONCURRENT_CALLS"
RETRY_SECONDS = 1.0
BACKGROUND_CALLS = 200
"""Of background services (watches): they are bounded apart, so that they take no place of the work's."""
OTHER_CALLS = 2_000
"""Calls above the limit that gRPC itself lets in: health, reflection and background services, which are never refused
for others' work, and those which are being refused."""


class ConcurrencyLimiter:
    """A guard that refuses one call more than `limit`, and before that more than a share of it for one connection or
    network; `background` names the services that count apart."""

    def __init__(self, telemetry: Telemetry, limit: int, background: Container[str] = ()) -> None:
        self._telemetry = telemetry
        self._limits = {KNOB: limit, "background calls": BACKGROUND_CALLS}
        self._background = background
        self._inside: Counter[str] = Counter()
        connection, network = (most_of(limit, *share) for share in ((3, 4), (7, 8)))
        self._shares = Shares(telemetry.stage, (KNOB, connection), (KNOB, network))

    @asynccontextmanager
    async def guard(self, call: CallInfo) -> AsyncIterator[None]:
        """Around a call. Raises Overloaded naming the setting."""
        kind = "background calls" if call.method.split("/")[0] in self._background else KNOB
        if self._inside[kind] >= self._limits[kind]:
            self._telemetry.metrics.shed.add(reason="max_concurrent_calls")
            raise Overloaded(self._telemetry.stage, kind, RETRY_SECONDS)
        with ExitStack() as place:
            if kind == KNOB:
                self._take_share(place, call)
            self._inside[kind] += 1
            try:
                yield
            finally:
                self._inside[kind] -= 1

    def _take_share(self, place: ExitStack, call: CallInfo) -> None:
        try:
            place.enter_context(self._shares.place(call.context.peer()))
        except Overloaded:
            self._telemetry.metrics.shed.add(reason="max_concurrent_calls")
            raise
