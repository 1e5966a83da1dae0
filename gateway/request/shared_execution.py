"""One execution with any number of subscribers (single-flight)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from hart.v1 import images_pb2

from runtime.deadline import Deadline

EVENT_BYTES = 1024  # of memory per message beside its content, estimated high
Emit = Callable[[images_pb2.GenerateEvent], None]


class LatestDeadline(Deadline):
    """The latest deadline of all subscribers. A subscriber with more time extends it."""

    def extend(self, other: Deadline) -> None:
        """Takes the other deadline where it is later."""
        object.__setattr__(self, "at", max(self.at, other.at))  # the only deadline that changes after it was created


class SharedExecution:
    """Runs `work(emit)` in its own task and keeps the events, so that a late subscriber misses none.

    `deadline`: the deadline of `work`. `where()`: the stage it waits for. `size`: bytes of the events in memory,
    approximately. The task is cancelled when the last subscriber leaves before the end. Use on the event loop's thread.
    """

    def __init__(
        self,
        work: Callable[[Emit], Awaitable[None]],
        deadline: LatestDeadline | None = None,
        where: Callable[[], str] = lambda: "",
    ) -> None:
        self.deadline = deadline or LatestDeadline()
        self.where = where
        self.events: list[images_pb2.GenerateEvent] = []
        self.size = 0
        self._grown = asyncio.Event()
        self._subscribers = 0
        self._abandoned = False
        self._task = asyncio.ensure_future(self._run(work))
        self._task.add_done_callback(self._ended)

    async def _run(self, work: Callable[[Emit], Awaitable[None]]) -> None:
        await work(self._emit)

    def _emit(self, event: images_pb2.GenerateEvent) -> None:
        self.events.append(event)
        self.size += event.ByteSize() + EVENT_BYTES
        self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    def _ended(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled():
            task.exception()  # subscribers raise it; without one it is dropped
        self._wake()

    @property
    def running(self) -> bool:
        """True until the execution ends or is abandoned."""
        return not self._task.done() and not self._abandoned

    @property
    def succeeded(self) -> bool:
        """True when it ended without an error."""
        return self._task.done() and not self._task.cancelled() and self._task.exception() is None

    def on_end(self, function: Callable[[], None]) -> None:
        """Calls `function` when the execution ends, for whatever reason."""
        self._task.add_done_callback(lambda _: function())

    async def subscribe(self) -> AsyncGenerator[images_pb2.GenerateEvent, None]:
        """Every event from the first. Raises the execution's error."""
        self._subscribers += 1
        try:
            seen = 0
            while True:
                grown = self._grown
                while seen < len(self.events):
                    yield self.events[seen]
                    seen += 1
                if self._task.done():
                    self._task.result()
                    return
                await grown.wait()
        finally:
            self._subscribers -= 1
            if not self._subscribers and not self._task.done():
                self._abandoned = True
                self._task.cancel()
