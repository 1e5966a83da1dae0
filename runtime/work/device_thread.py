"""One thread that owns the device: work from the event loop runs there, in order. Knows nothing of the work."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from runtime.errors import StageUnavailable
from runtime.selftest import SelfTestFailed

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)


def _end_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class DeviceThread:
    """Runs callables one after another off the event loop.

    An error that `is_fatal` says the device will not recover from, and a self-test that fails, end the process in
    order, so that it is started anew: a stage which fails every request at once would draw them all. Whoever had work
    here or brings more is told that `stage` is unavailable, and may go to another replica.
    """

    is_fatal: Callable[[BaseException], bool] = staticmethod(lambda error: False)
    on_fatal: Callable[[], None] = staticmethod(_end_this_process)

    def __init__(self, stage: str = "engine") -> None:
        self._stage = stage
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._lock = threading.Lock()
        self._outstanding = 0
        self.lost = False
        """True when the device is lost, or the model no longer computes what it should: nothing runs here any more."""
        self._reason = "its device is lost"

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result. Cancelling the wait does not stop a function that has begun; one that has not, never
        begins. Raises what the function raised, StageUnavailable where the device is lost."""
        with self._lock:
            future = self._executor.submit(self._call, function, *args, **kwargs)
            self._outstanding += 1
        future.add_done_callback(self._done)
        return await asyncio.wrap_future(future)

    def _call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.lost:
            raise StageUnavailable(self._stage, self._reason)
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            failed = isinstance(error, SelfTestFailed)
            if not failed and not self.is_fatal(error):
                raise
            if failed:
                self._reason = "its self-test failed"
            log.critical("%s: this process ends", self._reason, exc_info=error)
            self.lost = True
            self.on_fatal()
            raise StageUnavailable(self._stage, self._reason) from error

    def _done(self, future: Future[R]) -> None:
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
