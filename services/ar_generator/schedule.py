"""Which requests advance together next: pure functions, shared by the scheduler and the simulation.

The oldest request leads, and requests at its scale join its batch, up to that scale's maximum. Small scales are bound
by launches or by reading weights: their maximum is large, and a batch costs hardly more than one image. At large scales
one image keeps the device busy, and a larger batch would only delay it. So new requests gather at scale 0 while an
older one finishes, and then pass the small scales together. A request that has waited longer than the starvation limit
at a scale that batches leads once in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Schedulable(Protocol):
    """The attributes of a running request that the choice needs."""

    @property
    def scale(self) -> int:
        """The next scale to generate."""

    @property
    def moved_at(self) -> float:
        """The time of its slot or its last scale (monotonic seconds)."""


S = TypeVar("S", bound=Schedulable)


@dataclass(frozen=True)
class Choice(Generic[S]):
    """The next batch."""

    batch: list[S]
    """The leader first, then the oldest requests at its scale."""
    preempts: bool
    """True if a starving request leads instead of the oldest. The next choice must not preempt again."""


def choose_batch(
    running: Sequence[S], max_batch_per_scale: Sequence[int], starved_since: float, *, may_preempt: bool
) -> Choice[S]:
    """The next batch of `running` (oldest first, at least one).

    A request that has not moved since `starved_since` (monotonic seconds) is starving.
    """
    oldest = running[0]
    starving = (r for r in running if max_batch_per_scale[r.scale] > 1 and r.moved_at < starved_since)
    leader = min(starving, key=lambda r: r.moved_at, default=oldest) if may_preempt else oldest
    peers = [r for r in running if r.scale == leader.scale and r is not leader]
    return Choice([leader, *peers][: max_batch_per_scale[leader.scale]], leader is not oldest)


def last_scale(batch_size: int, scale: int, max_batch_per_scale: Sequence[int]) -> int:
    """The last scale that a batch of this size may generate without a new choice, starting at `scale`."""
    following = range(scale + 1, len(max_batch_per_scale))
    too_large = (k for k in following if batch_size > max_batch_per_scale[k])
    return next(too_large, len(max_batch_per_scale)) - 1
