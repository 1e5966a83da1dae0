"""Keeps latents from piling up before a slow decoder. Knows counts, no tensors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded


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
