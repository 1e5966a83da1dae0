"""One HTTP connection, with bounds that uvicorn's own lacks: on a slow request head, on unread responses, and on the
number of connections."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from gateway.http.errors import headers_of, to_json
from gateway.http.exchange import ABORT
from runtime.errors import InvalidRequest

HEAD_SECONDS = 10.0
"""Max time for a request's head to arrive after its first byte."""
MAX_CONNECTIONS = 1000
"""Above it the connection that has been idle for the longest time is closed, or the new one if none is idle."""


class BoundedConnection(H11Protocol):
    """A connection of a `uvicorn.Server`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_timer: asyncio.TimerHandle | None = None
        self.idle_since = time.monotonic()
        inner: Any = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {ABORT: self.transport.abort}
            await inner(scope, receive, send)

        self.app = app

    @property
    def idle(self) -> bool:
        """Whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Closes a connection above MAX_CONNECTIONS."""
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > MAX_CONNECTIONS:
            idle = [one for one in self.connections if isinstance(one, BoundedConnection) and one.idle]
            oldest = min(idle, key=lambda one: one.idle_since, default=self)
            (oldest if oldest.transport else self).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timers."""
        self._stop_timer()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Reads a part of a request."""
        if self._head_timer is None and self.conn.their_state is h11.IDLE:
            self._await_head()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()

    def on_response_complete(self) -> None:
        """The connection is idle from now on."""
        self.idle_since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Responds to bytes that are not HTTP with an error of the API, and closes."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            error = InvalidRequest.field("", "the request is not valid HTTP/1.1, or its head is too large")
            body = to_json(error)
            headers = {**headers_of(error), "content-type": "application/json", "content-length": str(len(body))}
            headers["connection"] = "close"
            response = h11.Response(status_code=400, headers=list(headers.items()), reason=b"Bad Request")
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_late)

    def _head_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
