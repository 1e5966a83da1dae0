"""Ctrl-C while the command waits for the cluster: it cancels the work, and raises nothing amid it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do the work as asyncio.run does; Ctrl-C cancels it, and KeyboardInterrupt is raised once it has ended.

    The loop hears of the signal between two steps of the work. asyncio.run alone, and gRPC's blocking calls, would
    raise KeyboardInterrupt at any line of theirs: a half-made loop warns, and gRPC waits for ever for a call that it
    began and never returned. A second Ctrl-C, and one before or after the work, meets the handler there was.
    """
    before = signal.getsignal(signal.SIGINT)

    async def heard() -> T:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)

        def pressed() -> None:
            signal.signal(signal.SIGINT, before)
            task.cancel()

        with suppress(NotImplementedError):  # Windows: the handler there was stays
            loop.add_signal_handler(signal.SIGINT, pressed)
        try:
            return await task
        finally:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)

    try:
        return asyncio.run(heard())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
