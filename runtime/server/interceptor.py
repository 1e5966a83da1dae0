"""Wraps every call: trace, metrics, gate, guards, parsing, errors. It imports no service.

Every method is registered as a stream of raw bytes, even if it has one request. So a guard can refuse before the
message arrives, a slow sender times out, and bytes that do not parse are INVALID_ARGUMENT. grpc.aio alone waits for the
whole message without a limit and returns UNKNOWN."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import Message
from opentelemetry.trace import SpanKind

from runtime import errors, status
from runtime.observability import tracing
from runtime.observability.telemetry import Telemetry
from runtime.server import messages

log = logging.getLogger(__name__)
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic to the type checker only
_PLAIN = ("grpc.health.", "grpc.reflection.")  # neither traced, counted, gated nor guarded
_INTROSPECTION_METHODS = (
    "Describe", "Status", "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig",
)  # fmt: skip
"""Methods that report a process's state and do no work. Like watches they are gated and guarded, but neither traced nor
counted: they are called every two seconds and would hide the metrics of the work."""
_MULTIPLEXED_STREAMS = ("ModelStreamInfer",)
"""Methods whose call carries many requests. The servicer counts each request. The call itself returns OK whatever its
requests returned, so it is counted only if it fails."""
TICKS = 5
"""Steps of a timer, so that a stalled event loop hardly counts as the caller's time."""
SLOWEST_READER = 128 * 2**10
"""Min rate at which a client must read, in bytes per second."""
_STRICT_PACKAGES = ("hart.",)  # packages whose unknown fields are refused


@dataclass(frozen=True)
class CallInfo:
    """A call before its message is read: "package.Service/Method", metadata and the gRPC context."""

    method: str
    metadata: tuple[tuple[str, str | bytes], ...]
    context: Any

    def header(self, name: str) -> str:
        """The first value of this (lower-case) metadata key as text, or ""."""
        return next((v if isinstance(v, str) else v.decode("latin-1") for k, v in self.metadata if k == name), "")


Guard = Callable[[CallInfo], AbstractAsyncContextManager[None]]
Precheck = Callable[[str], errors.HartError | None]


class ClientDisconnected(asyncio.CancelledError):
    """The client left while a response was being written. gRPC cancels the call too, but often later."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server.

    `gate(method)` returns an error to refuse a call (draining, not ready). `guards` surround the call in order
    (authentication, limits) and refuse by raising. A message must arrive within `receive_seconds`. A response must be
    read within `send_seconds` plus its transfer time. `background` names services whose calls do not delay draining.
    """

    def __init__(self, telemetry: Telemetry, gate: Precheck, receive_seconds: float, send_seconds: float) -> None:
        self._receive_seconds = receive_seconds
        self._send_seconds = send_seconds
        self._telemetry = telemetry
        self._gate = gate
        telemetry.metrics.shed.add(0, reason="not_serving")
        self.background: set[str] = set()
        self.guards: list[Guard] = []
        self.working = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The wrapped handler. For an unknown method: a handler that returns UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        if handler is None:  # gRPC's own handler logs a traceback if the call has already ended
            return grpc.stream_unary_rpc_method_handler(_unknown)
        method = _text(handler_call_details.method).strip("/")
        surround = self._surround(method)
        return _wrap(handler, method, surround, self._receive_seconds, self._send_seconds)

    def _surround(self, method: str) -> Surround:
        service, _, name = method.partition("/")
        if method.startswith(_PLAIN):
            return self._plain
        return self._unobserved if name in _INTROSPECTION_METHODS or service in self.background else self._observed

    async def _unobserved(self, method: str, context: Any, work: Callable[[], Awaitable[Any]]) -> Any:
        background = method.partition("/")[0] in self.background
        if not background:
            self._begin()
        try:
            self._admit(method)
            return await self._guarded(CallInfo(method, tuple(context.invocation_metadata() or ()), context), work)
        except Exception as error:
            known = self._judge(error)
            if known is None:
                raise
            await _abort(context, known)
        finally:
            if not background:
                self._end()

    async def _plain(self, method: str, context: Any, work: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await work()
        except errors.HartError as error:
            await _abort(context, error)

    async def _observed(self, method: str, context: Any, work: Callable[[], Awaitable[Any]]) -> Any:
        metadata = tuple(context.invocation_metadata() or ())
        metrics = self._telemetry.metrics
        begun = time.monotonic()
        code = grpc.StatusCode.OK
        self._begin()
        metrics.inflight.add(1)
        parent = tracing.extract(metadata)
        attributes = tracing.rpc_attributes(method) | tracing.peer_attributes(context.peer())
        try:
            with self._telemetry.tracing.span(
                method, kind=SpanKind.SERVER, parent=parent, attributes=attributes
            ) as span:
                try:
                    self._admit_work(method)
                    return await self._guarded(CallInfo(method, metadata, context), work)
                except asyncio.CancelledError:
                    code = self._ended_by_caller(context)
                    raise
                except BaseException as error:
                    known = self._judge(error)
                    code = known.code if known else _code(context.code())
                    if known is None:
                        raise
                    tracing.mark(span, known)
                    await _abort(context, known)
                finally:
                    tracing.set_code(span, code)
                    seconds = time.monotonic() - begun
                    metrics.count_rpc(method, code, seconds)
                    if code is not grpc.StatusCode.OK or not method.endswith(_MULTIPLEXED_STREAMS):
                        metrics.count(code, seconds)  # inside the span: it becomes the measurement's exemplar
        finally:
            metrics.inflight.add(-1)
            self._end()

    def _admit(self, method: str) -> None:
        if refusal := self._gate(method):
            raise refusal

    def _admit_work(self, method: str) -> None:
        try:
            self._admit(method)
        except errors.HartError:
            self._telemetry.metrics.shed.add(reason="not_serving")
            raise

    async def _guarded(self, call: CallInfo, work: Callable[[], Awaitable[Any]]) -> Any:
        try:
            async with AsyncExitStack() as stack:
                for guard in self.guards:
                    await stack.enter_async_context(guard(call))
                return await work()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling() or isinstance(error, ClientDisconnected):
                raise
            # Something that the call awaited was cancelled, not the call itself. gRPC would never answer the client.
            raise RuntimeError("an operation that the call awaited was cancelled") from error

    def _judge(self, error: BaseException) -> errors.HartError | None:
        """The domain error to return; None if the handler has already aborted the call."""
        if isinstance(error, errors.HartError):
            if isinstance(error, errors.Internal):
                log.error("internal error %s returned", error.error_id, extra={"error_id": error.error_id})
            return error
        if isinstance(error, grpc.aio.AbortError):
            return None
        return status.as_hart_error(error, self._telemetry.stage)

    def _ended_by_caller(self, context: Any) -> grpc.StatusCode:
        left = context.time_remaining()
        if left is not None and left <= 0:
            return grpc.StatusCode.DEADLINE_EXCEEDED
        self._telemetry.metrics.cancelled.add()
        return grpc.StatusCode.CANCELLED

    def _begin(self) -> None:
        self.working += 1
        self.idle.clear()

    def _end(self) -> None:
        self.working -= 1
        if not self.working:
            self.idle.set()


Surround = Callable[[str, Any, Callable[[], Awaitable[Any]]], Awaitable[Any]]


def _wrap(handler: Any, method: str, surround: Surround, receive_seconds: float, send_seconds: float) -> Handler:
    deserialize = handler.request_deserializer or (lambda data: data)
    strict = method.startswith(_STRICT_PACKAGES)

    def parse(data: bytes) -> Any:
        message = messages.parse(deserialize, data)
        if strict and isinstance(message, Message):
            messages.refuse_unknown(message)
        return message

    async def parse_all(stream: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for data in stream:
            yield parse(data)

    async def read(stream: AsyncIterator[bytes]) -> Any:
        if handler.request_streaming:
            return parse_all(stream)
        return parse(await _receive(stream, receive_seconds))

    behaviour: Any = next(
        b for b in (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream) if b
    )

    async def one(raw: Any, context: Any) -> Any:
        async def work() -> Any:
            return await behaviour(await read(raw), context)

        answer = await surround(method, context, work)
        _end_unless_read(answer, send_seconds)
        return answer

    async def many(raw: Any, context: Any) -> None:
        async def work() -> None:
            answers = behaviour(await read(raw), context)
            if not hasattr(answers, "__aiter__"):
                await answers
                return
            async with aclosing(answers) as stream:
                async for answer in stream:
                    await _write(context, answer, send_seconds)

        await surround(method, context, work)

    if handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(many, None, handler.response_serializer)
    return grpc.stream_unary_rpc_method_handler(one, None, handler.response_serializer)


async def _receive(stream: AsyncIterator[bytes], receive_timeout: float) -> bytes:
    try:
        async with asyncio.timeout(receive_timeout):
            return await anext(stream)
    except StopAsyncIteration:
        raise errors.InvalidRequest.field("", "the call has no message") from None
    except TimeoutError:
        raise errors.DeadlineExceeded("receiving", f"the message did not arrive within {receive_timeout} s") from None


def _send_timeout(answer: Any, seconds: float) -> float:
    """Max seconds for the client to read an answer."""
    return seconds + (answer.ByteSize() if isinstance(answer, Message) else 0) / SLOWEST_READER


class _Unread:
    """Cancels the current task, unless stopped, while its response stays unread. gRPC then resets the stream: a client
    that does not read gets no status. Time in which the event loop stalls hardly counts."""

    def __init__(self, answer: Any, seconds: float) -> None:
        self._task = asyncio.current_task()
        self._tick = _send_timeout(answer, seconds) / TICKS
        self._left = TICKS
        self._timer = asyncio.get_running_loop().call_later(self._tick, self._on_tick)

    def _on_tick(self) -> None:
        self._left -= 1
        if self._left:
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._on_tick)
        elif self._task is not None:
            self._task.cancel()

    def stop(self, *_: object) -> None:
        """The response was read, or its call has ended."""
        self._timer.cancel()


def _end_unless_read(answer: Any, seconds: float) -> None:
    """Cancels the call's task if the client does not read the response in time. gRPC then resets the stream."""
    task = asyncio.current_task()
    if task is not None:
        task.add_done_callback(_Unread(answer, seconds).stop)


async def _write(context: Any, answer: Any, seconds: float) -> None:
    unread = _Unread(answer, seconds)
    try:
        await context.write(answer)
    except grpc.aio.InternalError as error:  # raised by gRPC when the call is over
        raise ClientDisconnected from error
    finally:
        unread.stop()


async def _unknown(_: Any, context: Any) -> NoReturn:
    await _end(context, grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


async def _abort(context: Any, error: errors.HartError) -> NoReturn:
    ending = status.to_status(error)
    await _end(context, ending.code, ending.message, ending.trailing)


async def _end(
    context: Any, code: grpc.StatusCode, message: str, trailing: tuple[tuple[str, bytes], ...] = ()
) -> NoReturn:
    try:
        await context.abort(code, message, trailing)
    except grpc.aio.InternalError as failure:  # gRPC has already ended the call, e.g. for a message above the limit
        raise ClientDisconnected from failure
    raise AssertionError("abort raises")


def _code(number: Any) -> grpc.StatusCode:
    """The status code from grpc.aio's value for an aborted call: a number or None."""
    return next((code for code in grpc.StatusCode if number in (code, code.value[0])), grpc.StatusCode.UNKNOWN)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
