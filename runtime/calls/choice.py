"""The choice of a replica: a pure function, shared by the pool and the planner's simulation."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Loaded(Protocol):
    """What the choice needs of a replica."""

    @property
    def outstanding(self) -> float:
        """The cost of the attempts in progress."""


L = TypeVar("L", bound=Loaded)


def least_outstanding(replicas: Sequence[L], one_of: Callable[[Sequence[L]], L] = random.choice) -> L:
    """The replica with the min outstanding cost. `one_of` chooses among equals."""
    minimum = min(r.outstanding for r in replicas)
    return one_of([r for r in replicas if r.outstanding <= minimum + 1e-9])
