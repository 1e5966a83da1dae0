"""Wraps every gRPC call: scope, parsing, time limits, errors. It imports no service.

Every method is registered as a stream of raw bytes, even if it has one request. So a guard can refuse before the
message arrives, a slow sender times out, and bytes that do not parse are INVALID_ARGUMENT. grpc.aio alone waits for the
whole message without a limit and returns UNKNOWN."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import Message

from runtime import errors, status
from runtime.observability.telemetry import Telemetry
from runtime.server import messages
from runtime.server.call_scope import CallInfo, CallScope, ClientDisconnected, Precheck
from runtime.server.rpc_context import RpcContext

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic to the type checker only
_HEALTH, _REFLECTION = "grpc.health.", "grpc.reflection."
"""Neither traced, counted nor gated. Health is not guarded either."""
_INTROSPECTION_METHODS = (
    "Describe", "Status", "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig",
)  # fmt: skip
"""Methods that report a process's state and do no work. Like watches they are gated and guarded, but neither traced nor
counted: they are called every two seconds and would hide the metrics of the work."""
TICKS = 5
"""Steps of a timer, so that a stalled event loop hardly counts as the caller's time."""
SLOWEST_READER = 128 * 2**10
"""Min rate at which a client must read, in bytes per second."""
_STRICT_PACKAGES = ("hart.",)  # packages whose unknown fields are refused


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server with `scope`, whose gate is `gate`.

    A message must arrive within `receive_seconds`. A response must be read within `send_seconds` plus its transfer
    time.
    """

    def __init__(self, telemetry: Telemetry, gate: Precheck, receive_seconds: float, send_seconds: float) -> None:
        self._receive_seconds = receive_seconds
        self._send_seconds = send_seconds
        self.scope = CallScope(telemetry, gate)

    @property
    def working(self) -> int:
        """Calls in progress that delay draining."""
        return self.scope.working

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
        if method.startswith(_HEALTH):
            return self._plain
        if method.startswith(_REFLECTION):
            return self._reflected
        return (
            self._unobserved if name in _INTROSPECTION_METHODS or service in self.scope.background else self._observed
        )

    async def _unobserved(self, method: str, context: RpcContext, work: Callable[[], Awaitable[Any]]) -> Any:
        return await self.scope.unobserved(_call(method, context), work, partial(_abort, context))

    async def _observed(self, method: str, context: RpcContext, work: Callable[[], Awaitable[Any]]) -> Any:
        return await self.scope.observed(_call(method, context), work, partial(_abort, context))

    async def _plain(self, method: str, context: RpcContext, work: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await work()
        except errors.HartError as error:
            await _abort(context, error)

    async def _reflected(self, method: str, context: RpcContext, work: Callable[[], Awaitable[Any]]) -> Any:
        return await self._plain(method, context, partial(self.scope.reflected, _call(method, context), work))


def _call(method: str, context: RpcContext) -> CallInfo:
    return CallInfo(method, tuple(context.invocation_metadata() or ()), context)


Surround = Callable[[str, RpcContext, Callable[[], Awaitable[Any]]], Awaitable[Any]]


def _wrap(handler: Handler, method: str, surround: Surround, receive_seconds: float, send_seconds: float) -> Handler:
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

    async def one(raw: Any, context: RpcContext) -> Any:
        async def work() -> Any:
            return await behaviour(await read(raw), context)

        answer = await surround(method, context, work)
        _end_unless_read(answer, send_seconds)
        return answer

    async def many(raw: Any, context: RpcContext) -> None:
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


def _send_timeout(answer: object, seconds: float) -> float:
    """Max seconds for the client to read an answer."""
    return seconds + (answer.ByteSize() if isinstance(answer, Message) else 0) / SLOWEST_READER


class _Unread:
    """Cancels the current task, unless stopped, while its response stays unread. gRPC then resets the stream: a client
    that does not read gets no status. Time in which the event loop stalls hardly counts."""

    def __init__(self, answer: object, seconds: float) -> None:
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


def _end_unless_read(answer: object, seconds: float) -> None:
    """Cancels the call's task if the client does not read the response in time. gRPC then resets the stream."""
    task = asyncio.current_task()
    if task is not None:
        task.add_done_callback(_Unread(answer, seconds).stop)


async def _write(context: RpcContext, answer: object, seconds: float) -> None:
    unread = _Unread(answer, seconds)
    try:
        await context.write(answer)
    except grpc.aio.InternalError as error:  # raised by gRPC when the call is over
        raise ClientDisconnected from error
    finally:
        unread.stop()


async def _unknown(_: Any, context: RpcContext) -> NoReturn:
    await _end(context, grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


async def _abort(context: RpcContext, error: errors.HartError) -> NoReturn:
    ending = status.to_status(error)
    await _end(context, ending.code, ending.message, ending.trailing)


async def _end(
    context: RpcContext, code: grpc.StatusCode, message: str, trailing: tuple[tuple[str, bytes], ...] = ()
) -> NoReturn:
    try:
        await context.abort(code, message, trailing)
    except grpc.aio.InternalError as failure:  # gRPC has already ended the call, e.g. for a message above the limit
        raise ClientDisconnected from failure
    raise AssertionError("abort raises")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
