"""Keeps work from piling up: before a full generator at the door, before a slow decoder in between. Knows counts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded, Overloaded


class DecodeBackpressure:
    """Lets pictures begin while there is a place for their latents, so that a slow decoder slows the generators.

    A picture holds its place from before the generator is asked until its pixels have come. There are `limit` places
    for latents that wait, and one for each picture that the generators draw at the same time (`slots()`, 0 where it is
    not known): never are more pictures begun and not finished. Who finds no place waits in line, until `margin` seconds
    before the deadline. `come` of the begun ones have their latents, and wait for the decoder.
    """

    def __init__(self, limit: int, slots: Callable[[], int] = lambda: 0, margin: float = 0.0) -> None:
        self._limit = limit
        self._slots = slots
        self._margin = margin
        self._line: deque[asyncio.Future[None]] = deque()
        self.begun = 0
        self.come = 0

    @property
    def slow(self) -> str:
        """The stage that pictures wait for: the one that most of those begun have still before them."""
        return "decoder" if 2 * self.come > self.begun else "ar_generator"

    @property
    def places(self) -> int:
        """Pictures that may be begun and not finished, as things stand."""
        return self._limit + self._slots()

    @property
    def waiting(self) -> int:
        """Pictures in line."""
        return len(self._line)

    @asynccontextmanager
    async def place(self, deadline: Deadline) -> AsyncIterator[Callable[[], None]]:
        """Around a picture, from before its first scale to its pixels. Yields what to call when its latent has come.
        Raises DeadlineExceeded naming the slow stage."""
        await self._enter(deadline)
        come = 0

        def latent_came() -> None:
            nonlocal come
            come = 1
            self.come += 1

        try:
            yield latent_came
        finally:
            self.begun -= 1
            self.come -= come
            self._call_in()

    async def _enter(self, deadline: Deadline) -> None:
        if not self._line and self.begun < self.places:
            self.begun += 1
            return
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(called)
        try:
            while not called.done():
                left = deadline.earlier(self._margin)  # anew each time: a repeat that joined may have brought more time
                if left.expired:
                    raise DeadlineExceeded(self.slow, f"{self.begun} pictures are begun and not finished")
                await asyncio.wait([called], timeout=left.timeout())
        except BaseException:
            if called.done():
                self.begun -= 1  # it was called in at the same moment
            else:
                with suppress(ValueError):
                    self._line.remove(called)
            self._call_in()
            raise

    def _call_in(self) -> None:
        while self._line and self.begun < self.places:
            self._line.popleft().set_result(None)
            self.begun += 1


class AdmissionController:
    """Lets in no more pictures than the generators can hold, queues included, so that what cannot be drawn is refused
    before it has cost a verdict and an encoding.

    `capacity()`: pictures over all ready replicas, 0 where it is not known. `wait(stage)`: seconds until it is worth
    trying again; `shed()` counts a refusal. A picture counts from its admission until its latent has come; while the
    gate holds pictures back for a slow decoder, it is that one which fills the house.
    """

    def __init__(
        self,
        capacity: Callable[[], int],
        wait: Callable[[str], float],
        backpressure: DecodeBackpressure,
        shed: Callable[[], None] = lambda: None,
    ) -> None:
        self._capacity = capacity
        self._wait = wait
        self._backpressure = backpressure
        self._shed = shed
        self.inside = 0

    @contextmanager
    def admitted(self, pictures: int) -> Iterator[Callable[[], None]]:
        """Around a request's work. Yields what to call when one of its latents has come. Raises Overloaded."""
        capacity = self._capacity()
        if self.inside and 0 < capacity < self.inside + pictures:
            self._shed()
            raise self._refusal()
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

    def _refusal(self) -> Overloaded:
        stage = self._backpressure.slow if self._backpressure.waiting else "ar_generator"
        setting = "HART_MAX_PENDING_DECODES" if stage == "decoder" else "HART_MAX_QUEUED_REQUESTS"
        return Overloaded(stage, setting, min(30.0, max(0.5, self._wait(stage))))
