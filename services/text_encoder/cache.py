"""What was used last, within a number of bytes. Knows sizes, not contents."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Keeps at most `limit` bytes, forgetting what was not used for longest."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        """The value, now the last used one; None where there is none."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep the value of `size` bytes, unless it alone is over the limit."""
        if size > self.limit:
            return
        self._forget(key)
        self._kept[key] = (value, size)
        self.size += size
        while self.size > self.limit:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: K) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.size -= found[1]
