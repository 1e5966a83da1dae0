"""Which waiting entries form the next batch, and when it starts: pure functions, shared by the batcher and the
planner's simulation."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable
from typing import Protocol, TypeVar


class Keyed(Protocol):
    """What the choice needs of a waiting entry."""

    @property
    def key(self) -> Hashable:
        """Entries with equal keys may share a batch."""


K = TypeVar("K", bound=Keyed)


def batch_of(head: K, waiting: Iterable[K], max_batch: int) -> list[K]:
    """The first `max_batch` waiting entries (oldest first) with the key of `head`."""
    return list(itertools.islice((entry for entry in waiting if entry.key == head.key), max_batch))


def fill_seconds(size: int, max_batch: int, age: float, max_wait: float) -> float:
    """Seconds that a batch of `size` entries still waits for more; 0 if it starts now. `age`: seconds since its oldest
    entry arrived."""
    return 0.0 if size >= max_batch else max(0.0, max_wait - age)
