"""Tail sampling: failed requests are exported at any ratio.

The head decision (the parent's flag, else a ratio of trace ids) travels with the request. Spans that it does not sample
are recorded and held until the process's local root span ends. If any span failed, the whole local trace is exported,
including spans still open. So every process exports its part of a failed request.
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

MAX_ROOTS = 4_000  # local roots held; above it the oldest is dropped
MAX_SPANS = 500  # spans held per local root
MAX_LATE = 4_000  # open spans of failed roots: cancelled work ends after its root


class RecordAllSampler(Sampler):
    """Samples by ratio. Spans that are not sampled are recorded, so that failed ones can still be exported."""

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
        """The name in the SDK's diagnostics."""
        return f"RecordAllSampler({self._ratio})"


class ErrorTailSampler(SpanProcessor):
    """Exports sampled spans at once. Holds the others until their local root ends and exports them if any failed."""

    def __init__(self, exporter: SpanProcessor) -> None:
        self._exporter = exporter
        self._lock = threading.Lock()
        self._root_of: dict[int, int] = {}
        self._held: OrderedDict[int, list[ReadableSpan]] = OrderedDict()
        self._members: dict[int, list[int]] = {}
        self._late: OrderedDict[int, None] = OrderedDict()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Assign the span to its local root."""
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
        """Export the span, hold it, or decide at the end of its local root."""
        context = span.get_span_context()
        if context is None:
            return
        if context.trace_flags.sampled:
            self._exporter.on_end(span)
            return
        for kept in self._decided(span, context.span_id):
            self._exporter.on_end(_sampled(kept))

    def _decided(self, span: ReadableSpan, number: int) -> list[ReadableSpan]:
        """The spans to export after the end of this span."""
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
        """Export pending spans."""
        return self._exporter.force_flush(timeout_millis)


def _sampled(span: ReadableSpan) -> ReadableSpan:
    """A copy with the sampled flag. Exporters drop spans without it."""
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
