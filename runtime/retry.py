"""How many failed attempts may be made again. Knows no call."""

from __future__ import annotations


class RetryBudget:
    """A bucket of tokens: an answer adds `ratio`, a retry takes one, `reserve` is the most it holds. When most attempts
    fail, retries stop, so that they do not drown what is left of a stage."""

    def __init__(self, ratio: float = 0.2, reserve: float = 20.0) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._tokens = reserve

    def succeeded(self) -> None:
        """Note an attempt that was answered."""
        self._tokens = min(self._reserve, self._tokens + self._ratio)

    def spend(self) -> bool:
        """Take a token for one more attempt; False where none is left."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
