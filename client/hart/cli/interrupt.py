"""Ctrl-C while the command waits for the cluster: cancels the work instead of raising inside it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` as asyncio.run does. Ctrl-C cancels it; KeyboardInterrupt is raised when it has ended.

    The loop handles the signal between two steps of the work. asyncio.run alone, and gRPC's blocking calls, would
    raise KeyboardInterrupt at any of their lines: asyncio then warns about a half-initialised loop, and gRPC waits
    forever for a call that it started but did not return. The previous handler handles a second Ctrl-C, and one
    before or after the work.
    """
    before = signal.getsignal(signal.SIGINT)

    async def cancellable() -> T:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)

        def cancel() -> None:
            signal.signal(signal.SIGINT, before)
            task.cancel()

        with suppress(NotImplementedError):  # Windows: the previous handler stays
            loop.add_signal_handler(signal.SIGINT, cancel)
        try:
            return await task
        finally:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
