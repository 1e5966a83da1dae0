"""Admission of images: bounded by what the generators can hold and by what the decoder can take."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

from gateway.request.rules import bottleneck, has_room, may_start, retry_seconds
from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded, Overloaded


class DecodeBackpressure:
    """Limits the images in progress, so that a slow decoder slows the generators.

    An image holds a slot from before the generator call until its pixels arrive. There are `limit` slots for latents
    that wait for the decoder, plus one for each image that the generators can draw at once (`generator_slots()`, 0
    while unknown). An image without a slot waits until `margin` seconds before its deadline.
    """

    def __init__(self, limit: int, generator_slots: Callable[[], int] = lambda: 0, margin: float = 0.0) -> None:
        self._limit = limit
        self._generator_slots = generator_slots
        self._margin = margin
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.in_progress = 0
        self.at_decoder = 0
        """Images in progress whose latent has arrived."""

    @property
    def bottleneck(self) -> str:
        """The stage that most images in progress wait for."""
        return bottleneck(self.at_decoder, self.in_progress)

    @property
    def slots(self) -> int:
        """The current maximum of images in progress."""
        return self._limit + self._generator_slots()

    @property
    def waiting(self) -> int:
        """Images without a slot."""
        return len(self._waiters)

    @asynccontextmanager
    async def slot(self, deadline: Deadline) -> AsyncIterator[None]:
        """Holds a slot. Raises DeadlineExceeded naming the bottleneck."""
        await self._acquire(deadline)
        try:
            yield
        finally:
            self.in_progress -= 1
            self._grant()

    async def _acquire(self, deadline: Deadline) -> None:
        if not self._waiters and may_start(self.in_progress, self.slots):
            self.in_progress += 1
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(granted)
        try:
            while not granted.done():
                left = deadline.earlier(self._margin)  # read again each time: a repeated request may extend it
                if left.expired:
                    raise DeadlineExceeded(
                        self.bottleneck, f"{self.in_progress} images are in progress; this stage is the bottleneck"
                    )
                await asyncio.wait([granted], timeout=left.timeout())
        except BaseException:
            if granted.done():
                self.in_progress -= 1  # granted at the same moment
            else:
                with suppress(ValueError):
                    self._waiters.remove(granted)
            self._grant()
            raise

    def _grant(self) -> None:
        while self._waiters and may_start(self.in_progress, self.slots):
            self._waiters.popleft().set_result(None)
            self.in_progress += 1


@dataclass(eq=False)
class ImagePermit:
    """One image in progress: it counts for the generators until its latent arrives, then for the decoder."""

    _request: RequestPermit
    _backpressure: DecodeBackpressure
    _at_decoder: bool = False

    def generator_done(self) -> None:
        """The latent has arrived."""
        self._at_decoder = True
        self._backpressure.at_decoder += 1
        self._request.release_one()

    def release(self) -> None:
        """The image is finished or has failed."""
        self._backpressure.at_decoder -= self._at_decoder


class RequestPermit:
    """An admitted request. Each of its images counts as admitted until its latent arrives."""

    def __init__(self, controller: AdmissionController, num_images: int, backpressure: DecodeBackpressure) -> None:
        self._controller = controller
        self._backpressure = backpressure
        self._held = num_images
        controller.admitted += num_images

    @asynccontextmanager
    async def image(self, deadline: Deadline) -> AsyncIterator[ImagePermit]:
        """Begins one image: waits for decoder backpressure. Raises DeadlineExceeded naming the bottleneck."""
        async with self._backpressure.slot(deadline):
            permit = ImagePermit(self, self._backpressure)
            try:
                yield permit
            finally:
                permit.release()

    def release_one(self) -> None:
        """One image has left the generators."""
        self._held -= 1
        self._controller.admitted -= 1

    def release(self) -> None:
        """The request has ended."""
        self._controller.admitted -= self._held
        self._held = 0


class AdmissionController:
    """Admits no more images than the generators can hold, their queues included: an image that cannot be drawn is
    refused before it costs a verdict and an encoding.

    `capacity()`: images over all ready replicas, 0 while unknown. `wait(stage)`: seconds until a retry is worthwhile.
    `on_shed()` counts a refusal.
    """

    def __init__(
        self,
        capacity: Callable[[], int],
        wait: Callable[[str], float],
        backpressure: DecodeBackpressure,
        on_shed: Callable[[], None] = lambda: None,
    ) -> None:
        self._capacity = capacity
        self._wait = wait
        self._backpressure = backpressure
        self._on_shed = on_shed
        self.admitted = 0

    @property
    def waiting(self) -> int:
        """Admitted images that wait for backpressure to end."""
        return self._backpressure.waiting

    @contextmanager
    def acquire(self, num_images: int) -> Iterator[RequestPermit]:
        """Admits a request's images until the block ends. Raises Overloaded."""
        if not has_room(self.admitted, num_images, self._capacity()):
            self._on_shed()
            raise self._refusal()
        permit = RequestPermit(self, num_images, self._backpressure)
        try:
            yield permit
        finally:
            permit.release()

    def _refusal(self) -> Overloaded:
        stage = self._backpressure.bottleneck if self._backpressure.waiting else "ar_generator"
        setting = "HART_MAX_PENDING_DECODES" if stage == "decoder" else "HART_MAX_QUEUED_REQUESTS"
        return Overloaded(stage, setting, retry_seconds(self._wait(stage)))
