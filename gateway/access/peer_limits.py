"""Maximum of ongoing requests of anonymous callers, per connection and per network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from gateway.access import rate_limits
from gateway.config import GatewaySettings
from runtime.errors import Overloaded
from runtime.server.call_scope import CallInfo
from runtime.server.peers import Shares, share_of


class PeerLimits:
    """A guard: one connection or one network cannot use up every slot. Authenticated callers have their own limits."""

    def __init__(self, settings: GatewaySettings) -> None:
        connection = settings.connection_requests or share_of(settings.max_ongoing_requests, 3, 4)
        peer = settings.peer_requests or share_of(settings.max_ongoing_requests, 7, 8)
        self._shares = Shares("gateway", ("HART_CONNECTION_REQUESTS", connection), ("HART_PEER_REQUESTS", peer))

    @asynccontextmanager
    async def __call__(self, call: CallInfo) -> AsyncIterator[None]:
        """Limits a call. Describe and Status are not limited."""
        if call.method not in rate_limits.LIMITED or rate_limits.current.get():
            yield
            return
        with ExitStack() as place:
            try:
                place.enter_context(self._shares.place(call.context.peer()))
            except Overloaded as error:
                rate_limits.rejected(call, error)
                raise
            yield
