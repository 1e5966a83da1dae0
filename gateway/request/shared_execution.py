"""One request's work, watched by any number of callers. Knows nothing of how pictures are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from hart.v1 import images_pb2

from runtime.deadline import Deadline

EVENT_BYTES = 1024  # what a message takes in memory beside its content, by a generous estimate
Emit = Callable[[images_pb2.GenerateEvent], None]


class LatestDeadline(Deadline):
    """The latest of all who wait for the same work: it moves when one joins who has more time."""

    def extend(self, other: Deadline) -> None:
        """Take the other's, where it is later."""
        object.__setattr__(self, "at", max(self.at, other.at))  # the one deadline that is not fixed when it is made


class SharedExecution:
    """Runs `draw(emit)` in a task of its own and keeps what it emits, so that a caller who joins late misses nothing.

    `deadline` is the one that `draw` keeps; `where()` the stage it waits for; `size` the bytes that the events hold in
    memory, about. When the last watcher has gone before the
    end, the work is cancelled. To be used on the event loop's thread.
    """

    def __init__(
        self,
        draw: Callable[[Emit], Awaitable[None]],
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
        self._task = asyncio.ensure_future(self._run(draw))
        self._task.add_done_callback(self._ended)

    async def _run(self, draw: Callable[[Emit], Awaitable[None]]) -> None:
        await draw(self._emit)

    def _emit(self, event: images_pb2.GenerateEvent) -> None:
        self.events.append(event)
        self.size += event.ByteSize() + EVENT_BYTES
        self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    def _ended(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled():
            task.exception()  # whoever watches raises it; where nobody does any more it is nobody's
        self._wake()

    @property
    def running(self) -> bool:
        """True until the work has ended or was given up."""
        return not self._task.done() and not self._abandoned

    @property
    def succeeded(self) -> bool:
        """True when all was drawn."""
        return self._task.done() and not self._task.cancelled() and self._task.exception() is None

    def on_end(self, function: Callable[[], None]) -> None:
        """Call when the work has ended, however it did."""
        self._task.add_done_callback(lambda _: function())

    async def subscribe(self) -> AsyncGenerator[images_pb2.GenerateEvent, None]:
        """Every event from the first on; raises what ended the work."""
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
