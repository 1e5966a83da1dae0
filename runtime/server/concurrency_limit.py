"""Limits the concurrent calls of one process. Health checks do not count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from runtime.errors import Overloaded
from runtime.observability.telemetry import Telemetry
from runtime.server.call_scope import CallInfo
from runtime.server.peers import Shares, share_of

SETTING = "HART_MAX_CONCURRENT_CALLS"
RETRY_SECONDS = 1.0
OTHER_CALLS = 2_000
"""Calls that gRPC admits above the limit: health and reflection, which work must not displace, and calls that are being
refused."""


class ConcurrencyLimiter:
    """A guard that refuses calls above `limit`. One connection and one network may hold only a share of the limit."""

    def __init__(self, telemetry: Telemetry, limit: int) -> None:
        self._telemetry = telemetry
        self._limit = limit
        self._inside = 0
        connection, network = (share_of(limit, *share) for share in ((3, 4), (7, 8)))
        self._shares = Shares(telemetry.stage, (SETTING, connection), (SETTING, network))

    @asynccontextmanager
    async def guard(self, call: CallInfo) -> AsyncIterator[None]:
        """Hold a place during a call. Raises Overloaded, which names the setting."""
        if self._inside >= self._limit:
            self._telemetry.metrics.shed.add(reason="max_concurrent_calls")
            raise Overloaded(self._telemetry.stage, SETTING, RETRY_SECONDS)
        with ExitStack() as place:
            self._take_share(place, call)
            self._inside += 1
            try:
                yield
            finally:
                self._inside -= 1

    def _take_share(self, place: ExitStack, call: CallInfo) -> None:
        try:
            place.enter_context(self._shares.place(call.context.peer()))
        except Overloaded:
            self._telemetry.metrics.shed.add(reason="max_concurrent_calls")
            raise
