"""Counts the requests in progress, for scaling from zero."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Demand:
    """Counts requests in progress."""

    def __init__(self) -> None:
        self.ongoing = 0
        self.arrived = asyncio.Event()
        """Set, and replaced by a new event, when a request arrives, here or at another gateway."""
        self._busy_at = -math.inf

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts one request until the block ends."""
        self.ongoing += 1
        self._busy_at = time.monotonic()
        self.wake()
        try:
            yield
        finally:
            self.ongoing -= 1
            self._busy_at = time.monotonic()

    def wake(self) -> None:
        """Sets `arrived`."""
        self.arrived.set()
        self.arrived = asyncio.Event()

    def idle_seconds(self) -> float:
        """Seconds since a request was last in progress; 0 while one is, infinity before the first."""
        return 0.0 if self.ongoing else time.monotonic() - self._busy_at
