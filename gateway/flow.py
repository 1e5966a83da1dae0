"""Keeps work from piling up: before a full generator at the door, before a slow decoder in between. Knows counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded, Overloaded


class Door:
    """Lets in no more pictures than the generators can hold, queues included, so that what cannot be drawn is refused
    before it has cost a verdict and an encoding.

    `capacity()`: pictures over all ready replicas, 0 where it is not known. `wait()`: seconds until it is worth trying
    again. A picture counts from its admission until its latent has come.
    """

    def __init__(self, capacity: Callable[[], int], wait: Callable[[], float]) -> None:
        self._capacity = capacity
        self._wait = wait
        self.inside = 0

    @contextmanager
    def admitted(self, pictures: int) -> Iterator[Callable[[], None]]:
        """Around a request's work. Yields what to call when one of its latents has come. Raises Overloaded."""
        capacity = self._capacity()
        if self.inside and 0 < capacity < self.inside + pictures:
            raise Overloaded("ar_generator", "HART_QUEUE_LIMIT", min(30.0, max(0.5, self._wait())))
        left = pictures
        self.inside += left

        def drawn() -> None:
            nonlocal left
            left -= 1
            self.inside -= 1

        try:
            yield drawn
        finally:
            self.inside -= left


class LatentGate:
    """While `limit` finished latents wait for the decoder, no further picture is begun."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._freed = asyncio.Event()
        self.waiting = 0

    async def passed(self, deadline: Deadline) -> None:
        """Return when a picture may begin. Raises DeadlineExceeded naming the decoder."""
        while self.waiting >= self._limit:
            freed = self._freed
            try:
                await asyncio.wait_for(freed.wait(), deadline.timeout())
            except TimeoutError:
                raise DeadlineExceeded("decoder", f"{self.waiting} latents wait before it") from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Around the time in which a finished latent waits for its pixels."""
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
            self._freed.set()
            self._freed = asyncio.Event()
