"""One HTTP request and its response: a bounded body in, timed writes out, cancellation when the client leaves.

Raises domain errors. It imports no endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gateway.http import errors
from runtime.deadline import Deadline
from runtime.errors import HartError, InvalidRequest
from runtime.server.call_scope import CallInfo, ClientDisconnected
from runtime.server.interceptor import SLOWEST_READER

ABORT = "hart.abort"
"""The ASGI extension that resets the connection."""
MAX_UNREAD_BYTES, UNREAD_SECONDS = 2**20, 1.0
"""Max bytes and seconds for which a refused body is still read. Otherwise its sender would get a connection reset and
not the response."""
TIMEOUT_HEADER = "x-request-timeout"
EVENT_STREAM = "text/event-stream"
COMMON_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


@dataclass(frozen=True)
class Bounds:
    """Bounds of one exchange."""

    max_body_bytes: int
    receive_seconds: float
    """Max time for the whole body to arrive."""
    send_seconds: float
    """Max time for the client to read a part of the response, plus its transfer time."""
    closing: Callable[[], bool] = lambda: False
    """True while the process drains: responses then close their connection."""


class Exchange:
    """A request and its response. It is also the call's context for guards and deadlines."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, bounds: Bounds) -> None:
        self.request = Request(scope)
        self.started = False
        self._receive, self._send, self._bounds = receive, send, bounds
        self._abort: Callable[[], None] = scope.get("extensions", {}).get(ABORT, lambda: None)
        self._deadline = Deadline.none()
        self._complete = False
        self._left = False
        self._unsent = 0
        self._headers: dict[str, str] = {}
        self._streams_events = False

    # -- the call ----------------------------------------------------------------------------------------------------

    def info(self, method: str) -> CallInfo:
        """This call as guards see it: as a call of the gRPC method `method`."""
        route = self.request.scope["path"]
        attributes: dict[str, Any] = {"http.request.method": self.request.method, "url.path": route}
        metadata = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in self.request.headers.raw)
        return CallInfo(method, metadata, self, f"{self.request.method} {route}", attributes)

    def peer(self) -> str:
        """The client's address as gRPC writes it."""
        client = self.request.client
        if client is None:
            return "unknown"
        return f"ipv6:[{client.host}]:{client.port}" if ":" in client.host else f"ipv4:{client.host}:{client.port}"

    def time_remaining(self) -> float | None:
        """Seconds until the deadline that the client has set; None without one."""
        return None if self._deadline == Deadline.none() else self._deadline.remaining()

    def code(self) -> None:
        """None: a handler cannot abort a call."""

    def read_deadline(self) -> None:
        """Take the client's deadline from its header. Raises InvalidRequest."""
        given = self.request.headers.get(TIMEOUT_HEADER)
        if given is None:
            return
        try:
            seconds = float(given)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds <= 1e8:
            raise InvalidRequest.field("X-Request-Timeout", f"must be seconds over 0, not {given[:40]!r}")
        self._deadline = Deadline.after(seconds)

    @property
    def left(self) -> bool:
        """Whether the client has left."""
        return self._left

    @asynccontextmanager
    async def cancelled_if_client_leaves(self) -> AsyncIterator[None]:
        """Cancel the current task when the client disconnects. Use it when the body has been read."""
        task = asyncio.current_task()
        watcher = asyncio.create_task(self._watch(task))
        try:
            yield
        finally:
            watcher.cancel()

    async def _watch(self, task: asyncio.Task[Any] | None) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        if task is not None:
            task.cancel()

    # -- the request -------------------------------------------------------------------------------------------------

    async def body(self) -> bytes:
        """The JSON body. Raises InvalidRequest or one of its kinds, BodyTimeout; ClientDisconnected."""
        self._check_headers()
        limit, body = self._bounds.max_body_bytes, bytearray()
        try:
            async with asyncio.timeout(self._bounds.receive_seconds):
                while not self._complete:
                    body += await self._part()
                    if len(body) > limit:
                        raise _too_large(f"more than {limit}", limit)
        except TimeoutError:
            seconds = self._bounds.receive_seconds
            raise errors.BodyTimeout("receiving", f"the body did not arrive within {seconds:g} s") from None
        return bytes(body)

    def _check_headers(self) -> None:
        headers = self.request.headers
        kind = headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise errors.UnsupportedBody.field("Content-Type", f"must be application/json, not {kind[:80]!r}")
        coding = headers.get("content-encoding", "identity")
        if coding.lower() != "identity":
            raise errors.UnsupportedBody.field("Content-Encoding", f"must be absent, not {coding[:80]!r}")
        length = headers.get("content-length", "0")
        if int(length) > self._bounds.max_body_bytes:
            raise _too_large(length, self._bounds.max_body_bytes)

    async def _part(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._left = True
            raise ClientDisconnected
        self._complete = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def _skip_body(self) -> None:
        """Read what is left of a refused body, within bounds."""
        skipped = 0
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                while not self._complete and skipped < MAX_UNREAD_BYTES:
                    skipped += len(await self._part())
        except TimeoutError:
            pass

    # -- the response ------------------------------------------------------------------------------------------------

    def set_header(self, name: str, value: str) -> None:
        """Send this header with the response, also with an error."""
        self._headers[name] = value

    async def respond(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        """Send a whole response. Raises ClientDisconnected where the client does not read it in time."""
        whole = self._complete or not _has_body(self.request)
        headers = {"content-type": content_type, "content-length": str(len(body))}
        if not whole:
            headers["connection"] = "close"
        await self._start(status, headers)
        await self._write(body)
        if not whole:
            await self._skip_body()
        await self._write(b"", more=False)

    async def start_events(self) -> None:
        """Begin a stream of server-sent events."""
        self._streams_events = True
        await self._start(200, {"content-type": EVENT_STREAM, "x-accel-buffering": "no"})

    async def send_event(self, event: str, data: bytes) -> None:
        """Send one event, whose data is JSON without line ends."""
        await self._write(b"event: " + event.encode() + b"\ndata: " + data + b"\n\n")

    async def end(self) -> None:
        """End a stream of events."""
        await self._write(b"", more=False)

    async def refuse(self, error: HartError) -> None:
        """Send an error: a response, or an event of a stream that has begun."""
        if self.started and self._streams_events:
            await self.send_event("error", errors.to_json(error))
            await self.end()
        elif not self.started:
            self._headers |= errors.headers_of(error)
            await self.respond(errors.shape_of(error).status, errors.to_json(error))

    async def _start(self, status: int, headers: dict[str, str]) -> None:
        self.started = True
        trace.get_current_span().set_attribute("http.response.status_code", status)
        if self._bounds.closing():
            headers = {**headers, "connection": "close"}
        sent = {**COMMON_HEADERS, **self._headers, **headers}
        raw = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in sent.items()]
        await self._timed({"type": "http.response.start", "status": status, "headers": raw})

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        await self._timed({"type": "http.response.body", "body": data, "more_body": more})
        self._unsent = len(data)

    async def _timed(self, message: dict[str, Any]) -> None:
        """Send a message. The server first waits until the client has read nearly all of the one before."""
        try:
            async with asyncio.timeout(self._bounds.send_seconds + self._unsent / SLOWEST_READER):
                await self._send(message)
        except TimeoutError:
            self._abort()
            raise ClientDisconnected from None


def _has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


def _too_large(size: str, limit: int) -> errors.BodyTooLarge:
    return errors.BodyTooLarge.field("", f"the body has {size} bytes; at most {limit} are accepted")
