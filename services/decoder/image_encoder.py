"""Pixels to image files on a few threads of their own. Knows no latents."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from model.image_file import Pixels, encode
from runtime.errors import Overloaded
from runtime.observability.metrics import Metrics

SHED = "encoder_full"


@dataclass(frozen=True)
class EncodedImage:
    """An image file, and how its time was spent, in seconds."""

    data: bytes
    queue_seconds: float
    compute_seconds: float


class ImageEncoder:
    """Encodes off the event loop and off the engine's thread. While `limit` pictures wait or are in work, none is let
    to the decoder; those that it has already may still come."""

    def __init__(self, stage: str, threads: int, limit: int, metrics: Metrics) -> None:
        self._stage, self._threads, self._limit, self._metrics = stage, threads, limit, metrics
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="file")
        self._held = 0
        metrics.queue_depth.observe(lambda: self.queued, queue="files")
        metrics.queue_limit.observe(lambda: max(0, limit - threads), queue="files")
        metrics.shed.add(0, reason=SHED)

    @property
    def queued(self) -> int:
        """Pictures that wait for a thread."""
        return max(0, self._held - self._threads)

    @property
    def running(self) -> int:
        """Pictures in work."""
        return min(self._held, self._threads)

    @property
    def load(self) -> float:
        """Both, over the threads."""
        return self._held / self._threads

    def require_room(self) -> None:
        """Raises Overloaded when no further picture can be taken; to be asked before one is decoded."""
        if self._held >= self._limit:
            self._metrics.shed.add(reason=SHED)
            raise Overloaded(self._stage, "HART_ENCODE_THREADS")

    async def make(self, pixels: Pixels, format: str, quality: int, recipe: str | None) -> EncodedImage:
        """The image file."""
        arrived = time.monotonic()

        def work() -> EncodedImage:
            begun = time.monotonic()
            data = encode(pixels, format, quality, recipe)
            return EncodedImage(data, begun - arrived, time.monotonic() - begun)

        self._held += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._held -= 1

    async def close(self) -> None:
        """Take no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
