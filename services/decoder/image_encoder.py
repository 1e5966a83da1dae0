"""Encodes pixels to image files on its own threads."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from model.image_file import encode
from model.pixels import Pixels
from runtime.errors import Overloaded
from runtime.observability.metrics import Metrics

SHED = "encoder_full"


@dataclass(frozen=True)
class EncodedImage:
    """An image file and its times in seconds."""

    data: bytes
    queue_seconds: float
    compute_seconds: float


class ImageEncoder:
    """Encodes off the event loop and off the device thread. While `limit` images are queued or running, new ones are
    refused before decoding; images in the decoder are still accepted. `marked`: files say that AI made them."""

    def __init__(self, stage: str, threads: int, limit: int, metrics: Metrics, *, marked: bool = True) -> None:
        self._stage, self._threads, self._limit, self._metrics = stage, threads, limit, metrics
        self._marked = marked
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="file")
        self._held = 0
        metrics.queue_depth.observe(lambda: self.queued, queue="files")
        metrics.queue_limit.observe(lambda: max(0, limit - threads), queue="files")
        metrics.shed.add(0, reason=SHED)

    @property
    def queued(self) -> int:
        """Images waiting for a thread."""
        return max(0, self._held - self._threads)

    @property
    def running(self) -> int:
        """Images being encoded."""
        return min(self._held, self._threads)

    @property
    def load(self) -> float:
        """Queued and running images, divided by the threads."""
        return self._held / self._threads

    def require_room(self) -> None:
        """Raise Overloaded if `limit` is reached. Call it before decoding."""
        if self._held >= self._limit:
            self._metrics.shed.add(reason=SHED)
            raise Overloaded(self._stage, "HART_ENCODE_THREADS")

    async def make(self, pixels: Pixels, format: str, quality: int, recipe: str | None) -> EncodedImage:
        """Encode the pixels (H, W, 3). `recipe`: JSON for the file's metadata."""
        arrived = time.monotonic()

        def work() -> EncodedImage:
            begun = time.monotonic()
            data = encode(pixels, format, quality, recipe, marked=self._marked)
            return EncodedImage(data, begun - arrived, time.monotonic() - begun)

        self._held += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._held -= 1

    async def close(self) -> None:
        """Refuse new images."""
        self._pool.shutdown(wait=False, cancel_futures=True)
