"""A request in the scheduler and its events."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from opentelemetry.trace import SpanContext

from model.generation import GenerationState
from runtime.work.admission import Ticket
from services.ar_generator.engine import Array, GenerationRequest, Step


@dataclass(frozen=True)
class Admitted:
    """The request holds a slot."""

    queue_seconds: float


@dataclass(frozen=True)
class ScaleTime:
    """The start and duration of a scale. `start_seconds` is relative to the request's arrival."""

    scale: int
    start_seconds: float
    seconds: float
    batch_size: int


@dataclass(frozen=True)
class ScaleDone:
    """A finished scale. `latent` is set for previews and always for the last scale."""

    scale: int
    latent: Array | None


Event = Admitted | ScaleDone


@dataclass(eq=False)
class ActiveRequest:
    """One admitted request until its end."""

    request: GenerationRequest
    ticket: Ticket
    span: SpanContext
    state: GenerationState | None = None
    """Set when the request gets its slot."""
    abandoned: bool = False
    """True if its caller has left."""
    moved_at: float = 0.0
    """The time of its slot or its last scale (monotonic seconds)."""
    device_seconds: float = 0.0
    """Its share of engine time in seconds: each batch's time divided by the batch size."""
    error: BaseException | None = None
    """The engine's error for this request."""
    times: list[ScaleTime] = field(default_factory=list)
    events: asyncio.Queue[Event | BaseException] = field(default_factory=asyncio.Queue)
    """Unbounded, because it holds at most two entries per scale."""

    @property
    def scale(self) -> int:
        """The next scale to generate."""
        return self.state.scale if self.state is not None else 0

    def send(self, event: Event | BaseException) -> None:
        """Queue an event for the caller. An error is the last event."""
        self.events.put_nowait(event)

    def record(self, step: Step) -> None:
        """Record a finished scale."""
        self.moved_at = time.monotonic()
        self.device_seconds += step.seconds / len(step.latents)
        start = (step.started_ns - self.ticket.arrived_ns) / 1e9
        self.times.append(ScaleTime(step.scale, start, step.seconds, len(step.latents)))
