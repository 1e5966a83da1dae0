"""The thread that owns the device. Work from the event loop runs there in order."""

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
from runtime.work.self_test import SelfTestFailed

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)


def _end_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class DeviceThread:
    """Runs callables one by one off the event loop.

    An error that `is_fatal` classifies as permanent, or a failed self-test, ends the process gracefully, so that it is
    restarted. A replica that fails fast would otherwise attract all traffic (least-outstanding routing). Pending and
    new work fails with StageUnavailable for `stage`, which clients may retry on another replica.
    """

    is_fatal: Callable[[BaseException], bool] = staticmethod(lambda error: False)
    on_fatal: Callable[[], None] = staticmethod(_end_this_process)

    def __init__(self, stage: str = "engine") -> None:
        self._stage = stage
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._lock = threading.Lock()
        self._outstanding = 0
        self.lost = False
        """True if the device is lost or the self-test failed. No function runs after that."""
        self._reason = "its device is lost"

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function and return its result. Cancelling the wait does not stop a running function; a waiting one
        never starts. Raises the function's error, or StageUnavailable if `lost`."""
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
            log.critical("%s: exiting", self._reason, exc_info=error)
            self.lost = True
            self.on_fatal()
            raise StageUnavailable(self._stage, self._reason) from error

    def _done(self, future: Future[R]) -> None:
        with self._lock:
            self._outstanding -= 1

    @property
    def busy(self) -> bool:
        """True while a function is running or waiting."""
        return self._outstanding > 0

    def close(self, timeout: float = 1.0) -> bool:
        """Refuse new work. True if the running function ended within `timeout` seconds."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        end = time.monotonic() + timeout
        while self.busy and time.monotonic() < end:
            time.sleep(0.01)
        return not self.busy
