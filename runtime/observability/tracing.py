"""Spans, and their propagation in gRPC metadata. `tail_sampling` decides which spans are exported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import unquote

import grpc
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from runtime import errors
from runtime.observability import semconv

Metadata = tuple[tuple[str, str], ...]
Attributes = dict[str, AttributeValue]
_propagator = TraceContextTextMapPropagator()
_CARRIED = ("traceparent", "tracestate")
_REFUSALS = frozenset({
    grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED,
})  # fmt: skip
"""Status codes that do not mark a server span as failed, by OpenTelemetry's convention. Overload is among them:
otherwise each refused call would be exported just when load is high. `hart_shed_total` counts those."""


class Tracing:
    """Creates the process's spans."""

    def __init__(self, provider: TracerProvider, stage: str) -> None:
        self._tracer = provider.get_tracer("hart")
        self._stage = stage

    @contextmanager
    def span(
        self,
        name: str,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        parent: Context | None = None,
        attributes: Attributes | None = None,
    ) -> Iterator[Span]:
        """A span around the block, current inside it. An exception marks it as failed with its type name only: messages
        may contain prompts."""
        merged: Attributes = {"hart.stage": self._stage, **(attributes or {})}
        with self._tracer.start_as_current_span(
            name, context=parent, kind=kind, attributes=merged, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except grpc.aio.AbortError:  # raised by context.abort; `mark` has already set the span's status
                raise
            except BaseException as error:
                fail(span, type(error).__name__)
                raise

    @contextmanager
    def call(self, method: str, stage: str, attributes: Attributes | None = None) -> Iterator[tuple[Span, Metadata]]:
        """A client span around one call of `method` ("hart.v1.Decoder/Decode") to `stage`. Yields it and the
        metadata."""
        merged: Attributes = {**rpc_attributes(method), **(attributes or {}), "hart.peer.stage": stage}
        with self.span(method, kind=SpanKind.CLIENT, attributes=merged) as span:
            try:
                yield span, inject()
            except BaseException as error:
                set_code(span, getattr(error, "code", grpc.StatusCode.CANCELLED))
                raise
            set_code(span, grpc.StatusCode.OK)

    def record(
        self,
        name: str,
        parent: SpanContext,
        start_ns: int,
        end_ns: int,
        *,
        attributes: Attributes | None = None,
        links: Sequence[SpanContext] = (),
    ) -> None:
        """Record a past span as a child of `parent` (times in nanoseconds since the epoch)."""
        if not parent.is_valid:
            return
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
        merged: Attributes = {"hart.stage": self._stage, **(attributes or {})}
        span = self._tracer.start_span(
            name, context=context, attributes=merged, links=[Link(s) for s in links], start_time=start_ns
        )
        span.end(end_ns)

    def record_work(
        self,
        parent: SpanContext,
        arrived_ns: int,
        begun_ns: int,
        ended_ns: int,
        links: Sequence[SpanContext],
        batch_size: int,
    ) -> None:
        """Record the spans `queue`, `batch` (linked to every request in it) and `compute` of a batched request."""
        waited = (begun_ns - arrived_ns) / 1e9
        size: Attributes = {"hart.batch.size": batch_size}
        self.record("queue", parent, arrived_ns, begun_ns, attributes={"hart.queue.seconds": waited})
        self.record("batch", parent, begun_ns, ended_ns, attributes=size, links=links)
        self.record("compute", parent, begun_ns, ended_ns, attributes=size)


def fail(span: Span, description: str) -> None:
    """Mark the span as failed."""
    span.set_status(Status(StatusCode.ERROR, description))


def mark(span: Span, error: errors.HartError) -> None:
    """Record the domain error that ended a call on the call's span."""
    span.set_attribute(semconv.ERROR_TYPE, error.reason)
    if error.code in _REFUSALS:
        return
    fail(span, error.reason)


def set_code(span: Span, code: object) -> None:
    """Record a call's status code on its span. Values other than gRPC status codes are ignored."""
    if isinstance(code, grpc.StatusCode):
        span.set_attribute(semconv.RPC_RESPONSE_STATUS_CODE, code.name)


def rpc_attributes(method: str) -> Attributes:
    """The rpc.* attributes of a method given as "package.Service/Method"."""
    return {semconv.RPC_SYSTEM_NAME: semconv.GRPC, semconv.RPC_METHOD: method.strip("/")}


def server_attributes(address: str) -> Attributes:
    """Where a call goes to: "10.0.0.7:50055", "[::1]:50055" or "unix:/path"."""
    return _place(address, semconv.SERVER_ADDRESS, semconv.SERVER_PORT)


def peer_attributes(peer: str) -> Attributes:
    """Where a call comes from, as gRPC names it: "ipv4:10.0.0.7:51234", "ipv6:[::1]:51234" or "unix:/path"."""
    address = peer.partition(":")[2] if peer.startswith(("ipv4:", "ipv6:")) else peer
    return _place(unquote(address), semconv.NETWORK_PEER_ADDRESS, semconv.NETWORK_PEER_PORT)


def _place(address: str, host_name: str, port_name: str) -> Attributes:
    host, _, port = address.rpartition(":")
    if address.startswith("unix:") or not port.isdigit():
        return {host_name: address.removeprefix("unix:")} if address else {}
    return {host_name: host.strip("[]"), port_name: int(port)}


def inject(context: Context | None = None) -> Metadata:
    """The metadata that carries the current (or given) trace context."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context)
    return tuple(carrier.items())


def extract(metadata: Iterable[tuple[str, str | bytes]] | None) -> Context:
    """The trace context of a peer's metadata; an empty one if it is absent or malformed."""
    carrier = {key: value for key, value in metadata or () if key in _CARRIED and isinstance(value, str)}
    return _propagator.extract(carrier, Context())


def trace_id_of(span: Span) -> str:
    """The span's trace id as 32 hexadecimal digits; "" without a trace."""
    context = span.get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


def current_trace_id() -> str:
    """The current span's trace id, or ""."""
    return trace_id_of(trace.get_current_span())


def current_span_id() -> str:
    """The current span's id as 16 hexadecimal digits; "" without a span."""
    context = trace.get_current_span().get_span_context()
    return f"{context.span_id:016x}" if context.is_valid else ""
