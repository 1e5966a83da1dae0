"""Faults of processes: killed, hung, slowed. Knows no load and no invariant."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeVar

from benchmarks.drills.metrics import scrape
from benchmarks.harness.processes import Process

T = TypeVar("T")
PERIOD = 0.1
"""Seconds of one cycle of a slowed process: it runs for a part of it and is stopped for the rest."""


async def revive(process: Process, seconds: float = 240.0) -> None:
    """Start a process that has ended, on its old port, and return when it is ready."""
    process.start()
    await asyncio.to_thread(process.await_ready, seconds)


@contextmanager
def hung(*processes: Process) -> Iterator[None]:
    """Stop the processes (SIGSTOP) while the block runs."""
    for process in processes:
        process.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def slowed(process: Process, share: float) -> AsyncIterator[None]:
    """Let the process run only `share` of the time while the block runs."""

    async def turn() -> None:
        while True:
            with hung(process):
                await asyncio.sleep(PERIOD * (1 - share))
            await asyncio.sleep(PERIOD * share)

    turning = asyncio.create_task(turn())
    try:
        yield
    finally:
        turning.cancel()
        with suppress(asyncio.CancelledError):
            await turning


async def busy(process: Process, seconds: float = 3.0) -> None:
    """Return when the process has work, or after so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not (await scrape(process)).total("hart_load"):
                await asyncio.sleep(0.01)


async def kill(process: Process) -> None:
    """SIGKILL while it works, and start a new one in its place within a second."""
    await busy(process)
    process.kill()
    await asyncio.sleep(random.uniform(0.0, 1.0))
    await revive(process)


async def hang(process: Process) -> None:
    """Stop in the middle of work, mostly for longer than the gateway takes to detect it."""
    await busy(process)
    with hung(process):
        await asyncio.sleep(random.uniform(0.5, 9.0))


async def slow(process: Process) -> None:
    """Run at an eighth of its speed for a while."""
    async with slowed(process, 0.125):
        await asyncio.sleep(random.uniform(3.0, 8.0))


async def inject(victims: Sequence[T], act: Callable[[T], Awaitable[None]], seconds: float, pause: float) -> int:
    """Call `act` on one random victim after another for about `seconds`, at least once. Returns the number of calls.

    `pause`: mean seconds between two calls.
    """
    end, times = time.monotonic() + seconds, 0
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5) * pause)
        if times and time.monotonic() > end:
            return times
        await act(random.choice(victims))
        times += 1
