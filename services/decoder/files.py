"""Pixels to image files on a few threads of their own. Knows no latents."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from model.picture import Pixels, encode
from runtime.errors import Overloaded


class FileMaker:
    """Encodes off the event loop and off the engine's thread. While `limit` pictures wait or are in work, none is let
    to the decoder; those that it has already may still come."""

    def __init__(self, stage: str, threads: int, limit: int) -> None:
        self._stage, self._limit = stage, limit
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="file")
        self._waiting = 0

    def require_room(self) -> None:
        """Raises Overloaded when no further picture can be taken; to be asked before one is decoded."""
        if self._waiting >= self._limit:
            raise Overloaded(self._stage, "HART_FILE_THREADS")

    async def make(self, pixels: Pixels, format: str, quality: int, recipe: str | None) -> tuple[bytes, float]:
        """The image file, and the seconds that it took."""
        self._waiting += 1
        begun = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, encode, pixels, format, quality, recipe), _since(begun)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Take no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _since(moment: float) -> float:
    return time.monotonic() - moment
