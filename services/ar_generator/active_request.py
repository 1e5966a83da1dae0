"""A picture on its way through the scheduler, and what its caller hears of it. Knows no engine."""

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
    """The picture has a slot."""

    queue_seconds: float


@dataclass(frozen=True)
class ScaleTime:
    """When and how long a scale was computed; `start_seconds` counts from the request's arrival."""

    scale: int
    start_seconds: float
    seconds: float
    batch_size: int


@dataclass(frozen=True)
class ScaleDone:
    """A scale is drawn; the latent is there where it is wanted, and always after the last one."""

    scale: int
    latent: Array | None


Event = Admitted | ScaleDone


@dataclass(eq=False)
class ActiveRequest:
    """One request from its admission to its end."""

    request: GenerationRequest
    ticket: Ticket
    span: SpanContext
    state: GenerationState | None = None
    """From the moment on that it holds a slot."""
    abandoned: bool = False
    """Its caller has gone."""
    moved_at: float = 0.0
    """When it got its slot or its last scale (monotonic seconds)."""
    device_seconds: float = 0.0
    """Seconds of the engine that it has had: its part of each batch."""
    error: BaseException | None = None
    """What the engine failed with."""
    times: list[ScaleTime] = field(default_factory=list)
    events: asyncio.Queue[Event | BaseException] = field(default_factory=asyncio.Queue)
    """At most two entries per scale: it needs no bound of its own."""

    @property
    def scale(self) -> int:
        """The next scale to be drawn."""
        return self.state.scale if self.state is not None else 0

    def send(self, event: Event | BaseException) -> None:
        """What the caller hears next; an error is the last."""
        self.events.put_nowait(event)

    def record(self, step: Step) -> None:
        """Account for a scale that has just been drawn."""
        self.moved_at = time.monotonic()
        self.device_seconds += step.seconds / len(step.latents)
        start = (step.started_ns - self.ticket.arrived_ns) / 1e9
        self.times.append(ScaleTime(step.scale, start, step.seconds, len(step.latents)))
