"""What every step of one request needs: its identity, deadline, timings and span."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry import trace

from gateway.request.shared_execution import LatestDeadline
from gateway.stages.timings import RequestTimings
from runtime.observability.tracing import trace_id_of


@dataclass(frozen=True)
class RequestContext:
    """One request in progress. Passed as an argument, never read from ambient state."""

    request_id: str
    caller: str
    """The caller's name; "" for an anonymous caller."""
    deadline: LatestDeadline
    timings: RequestTimings
    span: trace.Span
    """The request's server span."""

    @property
    def trace_id(self) -> str:
        """The W3C trace id, 32 hexadecimal digits; "" without a trace."""
        return trace_id_of(self.span)
