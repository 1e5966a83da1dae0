"""The retry budget: a token bucket that limits retries."""

from __future__ import annotations

import time
from collections.abc import Callable


class RetryBudget:
    """A token bucket of at most `reserve` tokens. A success adds `ratio`, a second adds `per_second`, a retry takes
    one.

    If most attempts fail, retries stop, so that they do not overload the remaining replicas. The tokens per second keep
    retries possible for a stage with little traffic; they do not matter for a stage with much traffic."""

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
        """Record an attempt that succeeded."""
        self._add(self._ratio)

    def spend(self) -> bool:
        """Take a token for a retry; False if none is left."""
        now = self._clock()
        self._add((now - self._since) * self._per_second)
        self._since = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _add(self, tokens: float) -> None:
        self._tokens = min(self._reserve, self._tokens + tokens)
