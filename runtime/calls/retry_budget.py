"""How many failed attempts may be made again. Knows no call."""

from __future__ import annotations

import time
from collections.abc import Callable


class RetryBudget:
    """A bucket of tokens: an answer adds `ratio`, a second adds `per_second`, a retry takes one, `reserve` is the most
    it holds. When most attempts fail, retries stop, so that they do not drown what is left of a stage; what time adds
    keeps a stage with little traffic from running dry, and is nothing to one with much."""

    def __init__(
        self,
        ratio: float = 0.2,
        reserve: float = 20.0,
        per_second: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._per_second = per_second
        self._clock = clock
        self._tokens = reserve
        self._since = clock()

    def succeeded(self) -> None:
        """Note an attempt that was answered."""
        self._add(self._ratio)

    def spend(self) -> bool:
        """Take a token for one more attempt; False where none is left."""
        now = self._clock()
        self._add((now - self._since) * self._per_second)
        self._since = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _add(self, tokens: float) -> None:
        self._tokens = min(self._reserve, self._tokens + tokens)
