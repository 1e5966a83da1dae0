"""Surrounds the calls of one process, whatever their transport: gate, guards, trace, metrics, errors, drain count."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc
from opentelemetry.trace import SpanKind

from runtime import errors, status
from runtime.observability import tracing
from runtime.observability.telemetry import Telemetry

log = logging.getLogger(__name__)
T = TypeVar("T")
_MULTIPLEXED_STREAMS = ("ModelStreamInfer",)
"""Methods whose call carries many requests. The servicer counts each request. The call itself returns OK whatever its
requests returned, so it is counted only if it fails."""


class CallContext(Protocol):
    """What guards and deadlines read of a call's transport. `grpc.aio.ServicerContext` has these methods."""

    def peer(self) -> str:
        """The client's address: "ipv4:10.0.0.7:51234" or "ipv6:[::1]:51234"."""
        ...

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline; None without one."""
        ...

    def code(self) -> object:
        """The status code with which the handler has aborted the call: a gRPC code, a number or None."""
        ...


@dataclass(frozen=True)
class CallInfo:
    """A call before its message is read: "package.Service/Method", metadata and the transport's context."""

    method: str
    metadata: tuple[tuple[str, str | bytes], ...]
    context: CallContext
    name: str = ""
    """The span's name, where it is not the method."""
    attributes: tracing.Attributes | None = None
    """The span's attributes. None: those of a gRPC method."""

    def header(self, name: str) -> str:
        """The first value of this (lower-case) metadata key as text, or ""."""
        return next((v if isinstance(v, str) else v.decode("latin-1") for k, v in self.metadata if k == name), "")


Guard = Callable[[CallInfo], AbstractAsyncContextManager[None]]
Precheck = Callable[[str], errors.HartError | None]
Refuse = Callable[[errors.HartError], Awaitable[T]]
"""Sends an error to the client. Its result is the call's."""


class ClientDisconnected(asyncio.CancelledError):
    """The client left while a response was being written. The transport cancels the call too, but often later."""


class CallScope:
    """The scope in which a process runs calls.

    `gate(method)` returns an error to refuse a call (draining, not ready). `guards` surround a call in order
    (authentication, limits) and refuse by raising; `reflection_guards` surround reflection. `background` names services
    whose calls do not delay draining.
    """

    def __init__(self, telemetry: Telemetry, gate: Precheck) -> None:
        self._telemetry = telemetry
        self._gate = gate
        telemetry.metrics.shed.add(0, reason="not_serving")
        self.background: set[str] = set()
        self.guards: list[Guard] = []
        self.reflection_guards: list[Guard] = []
        self.working = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def unobserved(self, call: CallInfo, work: Callable[[], Awaitable[T]], refuse: Refuse[T]) -> T:
        """Run a call that is gated and guarded, but neither traced nor counted."""
        background = call.method.partition("/")[0] in self.background
        if not background:
            self._begin()
        try:
            self._admit(call.method)
            return await self._guarded(call, work, self.guards)
        except Exception as error:
            known = self._judge(error)
            if known is None:
                raise
            return await refuse(known)
        finally:
            if not background:
                self._end()

    async def observed(self, call: CallInfo, work: Callable[[], Awaitable[T]], refuse: Refuse[T]) -> T:
        """Run a call with a server span and metrics."""
        metrics = self._telemetry.metrics
        begun = time.monotonic()
        code = grpc.StatusCode.OK
        self._begin()
        metrics.inflight.add(1)
        is_rpc = call.attributes is None
        own = tracing.rpc_attributes(call.method) if call.attributes is None else call.attributes
        attributes = {**own, **tracing.peer_attributes(call.context.peer())}
        parent = tracing.extract(call.metadata)
        try:
            with self._telemetry.tracing.span(
                call.name or call.method, kind=SpanKind.SERVER, parent=parent, attributes=attributes
            ) as span:
                try:
                    self._admit_work(call.method)
                    return await self._guarded(call, work, self.guards)
                except asyncio.CancelledError:
                    code = self._ended_by_caller(call.context)
                    raise
                except BaseException as error:
                    known = self._judge(error)
                    code = known.code if known else _code(call.context.code())
                    if known is None:
                        raise
                    tracing.mark(span, known)
                    return await refuse(known)
                finally:
                    tracing.set_code(span, code)
                    seconds = time.monotonic() - begun
                    if is_rpc:
                        metrics.count_rpc(call.method, code, seconds)
                    if code is not grpc.StatusCode.OK or not call.method.endswith(_MULTIPLEXED_STREAMS):
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

    async def reflected(self, call: CallInfo, work: Callable[[], Awaitable[T]]) -> T:
        """Run a reflection call: neither gated, traced nor counted, and surrounded by its own guards alone."""
        return await self._guarded(call, work, self.reflection_guards)

    async def _guarded(self, call: CallInfo, work: Callable[[], Awaitable[T]], guards: Sequence[Guard]) -> T:
        try:
            async with AsyncExitStack() as stack:
                for guard in guards:
                    await stack.enter_async_context(guard(call))
                return await work()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling() or isinstance(error, ClientDisconnected):
                raise
            # Something that the call awaited was cancelled, not the call itself. gRPC would never answer the client.
            raise RuntimeError("an operation that the call awaited was cancelled") from error
        raise AssertionError("a guard suppressed an error")

    def _judge(self, error: BaseException) -> errors.HartError | None:
        """The domain error to return; None if the handler has already aborted the call."""
        if isinstance(error, errors.HartError):
            if isinstance(error, errors.Internal):
                log.error("internal error %s returned", error.error_id, extra={"error_id": error.error_id})
            return error
        if isinstance(error, grpc.aio.AbortError):
            return None
        return status.as_hart_error(error, self._telemetry.stage)

    def _ended_by_caller(self, context: CallContext) -> grpc.StatusCode:
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


def _code(number: object) -> grpc.StatusCode:
    """The status code from grpc.aio's value for an aborted call: a number or None."""
    return next((code for code in grpc.StatusCode if number in (code, code.value[0])), grpc.StatusCode.UNKNOWN)
