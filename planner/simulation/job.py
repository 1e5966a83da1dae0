"""One call to a stage, as the stage sees it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from simpy import Environment, Event


@dataclass(frozen=True)
class Failure:
    """Why a call or a request failed."""

    stage: str
    reason: str
    """overloaded, deadline or unavailable."""
    retry_after: float = 0.0


@dataclass(eq=False)
class Job:
    """Work that a replica has admitted. `done` succeeds with None or a Failure."""

    env: Environment
    deadline: float
    """Simulated seconds."""
    cost: float = 1.0
    key: Hashable = None
    previews: Callable[[int], None] | None = None
    """Generator: called after each scale with its index."""
    arrived_at: float = 0.0
    scale: int = 0
    """Generator: the next scale."""
    moved_at: float = 0.0
    """Generator: the time of its slot or its last scale."""
    device_seconds: float = 0.0
    """Generator: its share of engine time."""
    done: Event = field(init=False)

    def __post_init__(self) -> None:
        self.done = self.env.event()
        self.arrived_at = self.env.now

    @property
    def over(self) -> bool:
        """True after the result, a failure or the caller's departure."""
        return bool(self.done.triggered)

    def end(self, failure: Failure | None = None) -> None:
        """Send the result to the caller, once."""
        if not self.over:
            self.done.succeed(failure)


Steps = Any
"""A SimPy process's generator. Its yields and results are events of any type."""
