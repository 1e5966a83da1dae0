"""One thread that owns the device: work from the event loop runs there, in order. Knows nothing of the work."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class EngineThread:
    """Runs callables one after another off the event loop."""

    def __init__(self, name: str = "engine") -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._outstanding = 0

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result. Cancelling the wait does not stop a function that has begun; one that has not, never
        begins."""
        with self._lock:
            self._outstanding += 1
        future = self._executor.submit(function, *args, **kwargs)
        future.add_done_callback(lambda _: self._done())
        return await asyncio.wrap_future(future)

    def _done(self) -> None:
        with self._lock:
            self._outstanding -= 1

    @property
    def busy(self) -> bool:
        """True while a function runs or waits."""
        return self._outstanding > 0

    def close(self, timeout: float = 1.0) -> bool:
        """Take no more work; True when the running function ended within `timeout` seconds."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        end = time.monotonic() + timeout
        while self.busy and time.monotonic() < end:
            time.sleep(0.01)
        return not self.busy
