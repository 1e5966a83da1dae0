"""One route as an ASGI application that runs in the process's call scope."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from gateway.http.exchange import Bounds, Exchange
from runtime.server.call_scope import CallScope, ClientDisconnected

Handler = Callable[[Exchange], Awaitable[None]]


class Endpoint:
    """Runs `handler` for each request, as gRPC runs the method `method` ("package.Service/Method"): with the same gate,
    guards, metrics and spans.

    `observed`: False for a call that does no work, which is neither traced nor counted.
    """

    def __init__(
        self, handler: Handler, method: str, calls: CallScope, bounds: Bounds, *, observed: bool = True
    ) -> None:
        self._handler = handler
        self._method = method
        self._surround = calls.observed if observed else calls.unobserved
        self._bounds = bounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange = Exchange(scope, receive, send, self._bounds)
        try:
            await self._surround(exchange.info(self._method), lambda: self._handler(exchange), exchange.refuse)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:
            if not exchange.left:
                raise
