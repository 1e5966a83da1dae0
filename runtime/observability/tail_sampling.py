"""Which spans are kept. Knows spans alone.

The head decision (the parent's flag, else a ratio of trace ids) travels with the request. Spans that it did not choose
are recorded all the same and held until the process's own root span of that request ends; they are exported if any of
them ended in an error, and so is then what still runs. So every process keeps its part of a failed request, at any
ratio.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import Attributes

MAX_ROOTS = 4_000  # held at the same time; beyond it the oldest is forgotten
MAX_SPANS = 500  # held per root
MAX_LATE = 4_000  # spans that may still run when their root has ended in an error: what was cancelled ends after it


class RecordAllSampler(Sampler):
    """Samples by ratio, and records what was not sampled, so that an error can still be kept."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._head = ParentBased(TraceIdRatioBased(ratio))

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """The head decision, with RECORD_ONLY in place of DROP."""
        head = self._head.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        if head.decision is Decision.DROP:
            return SamplingResult(Decision.RECORD_ONLY, attributes, trace_state)
        return head

    def get_description(self) -> str:
        """For the SDK's own diagnostics."""
        return f"RecordAllSampler({self._ratio})"


class ErrorTailSampler(SpanProcessor):
    """Passes sampled spans on at once; holds the others until their local root ends, for the case of an error."""

    def __init__(self, exporter: SpanProcessor) -> None:
        self._exporter = exporter
        self._lock = threading.Lock()
        self._root_of: dict[int, int] = {}
        self._held: OrderedDict[int, list[ReadableSpan]] = OrderedDict()
        self._members: dict[int, list[int]] = {}
        self._late: OrderedDict[int, None] = OrderedDict()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note to which local root the span belongs."""
        context = span.get_span_context()
        if context is None or context.trace_flags.sampled:
            return
        with self._lock:
            parent = span.parent
            if parent and parent.span_id in self._late:
                self._late[context.span_id] = None
                return
            root = self._root_of.get(parent.span_id) if parent and not parent.is_remote else None
            if root is None:
                root = context.span_id
                self._held[root] = []
                self._members[root] = []
                if len(self._held) > MAX_ROOTS:
                    self._forget(next(iter(self._held)))
            if len(self._members[root]) < MAX_SPANS:
                self._root_of[context.span_id] = root
                self._members[root].append(context.span_id)

    def on_end(self, span: ReadableSpan) -> None:
        """Export, hold, or, at a local root's end, decide."""
        context = span.get_span_context()
        if context is None:
            return
        if context.trace_flags.sampled:
            self._exporter.on_end(span)
            return
        for kept in self._decided(span, context.span_id):
            self._exporter.on_end(_sampled(kept))

    def _decided(self, span: ReadableSpan, number: int) -> list[ReadableSpan]:
        """What is to be exported now that this span has ended."""
        with self._lock:
            if number in self._late:
                del self._late[number]
                return [span]
            root = self._root_of.get(number)
            if root is None:
                return []
            held = self._held[root]
            held.append(span)
            if root != number:
                return []
            running = set(self._members[root]) - {s.context.span_id for s in held if s.context}
            self._forget(root)
            if not any(s.status.status_code is StatusCode.ERROR for s in held):
                return []
            self._late.update(dict.fromkeys(running))
            while len(self._late) > MAX_LATE:
                self._late.popitem(last=False)
            return held

    def _forget(self, root: int) -> None:
        self._held.pop(root, None)
        for member in self._members.pop(root, ()):
            self._root_of.pop(member, None)

    def shutdown(self) -> None:
        """Flush and stop the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what waits for export."""
        return self._exporter.force_flush(timeout_millis)


def _sampled(span: ReadableSpan) -> ReadableSpan:
    """A copy with the sampled flag, without which exporters drop a span."""
    old = span.get_span_context()
    assert old is not None  # noqa: S101 - ended spans have one
    flags = TraceFlags(old.trace_flags | TraceFlags.SAMPLED)
    context = SpanContext(old.trace_id, old.span_id, old.is_remote, flags, old.trace_state)
    return ReadableSpan(
        name=span.name,
        context=context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=span.events,
        links=span.links,
        kind=span.kind,
        instrumentation_scope=span.instrumentation_scope,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
    )
