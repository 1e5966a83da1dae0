"""The batcher: it groups waiting work, runs batches on the device thread, and returns results to their callers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from opentelemetry import trace

from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded
from runtime.observability.metrics import Metrics
from runtime.observability.tracing import Tracing
from runtime.work.admission import Admission, Ticket, TicketState
from runtime.work.batches import batch_of, fill_seconds
from runtime.work.device_thread import DeviceThread

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchResult(Generic[R]):
    """A result and its times in seconds. `batch_size` is the number of items that ran together."""

    value: R
    queue_seconds: float
    compute_seconds: float
    batch_size: int


@dataclass(eq=False)
class _Entry(Generic[T, R]):
    item: T
    key: Hashable
    priority: int
    ticket: Ticket
    done: asyncio.Future[BatchResult[R]]
    span: trace.SpanContext


class Batcher(Generic[T, R]):
    """Groups items with equal `key` into batches of at most `max_batch` items. The batch of the oldest item of the
    highest priority runs next.

    `run(items)` is called on the device thread and returns one result per item, in order. A result that is an exception
    is raised for that item alone. If `run` raises for several items, each item is retried alone, so that one item
    cannot fail the others. A batch that is not full waits at most `max_wait` seconds, and only while no other batch
    runs.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R | BaseException]],
        *,
        admission: Admission,
        thread: DeviceThread,
        max_batch: int,
        max_wait: float = 0.0,
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._run = run
        self.admission = admission
        self._thread = thread
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._metrics = metrics
        self._tracing = tracing
        self._waiting: dict[int, _Entry[T, R]] = {}
        self._arrived = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None

    async def submit(
        self,
        item: T,
        *,
        cost: float = 1.0,
        deadline: Deadline | None = None,
        key: Hashable = None,
        priority: int = 0,
    ) -> BatchResult[R]:
        """Queue the item and wait for its result. Items of a higher `priority` overtake it while it waits.

        Raises Overloaded at once if the queue is full, DeadlineExceeded if the deadline cannot be met or passes while
        the item waits, or the error of `run`. Cancelling the wait frees the queue slot at once.
        """
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._serve(), name=f"batcher {self.admission.stage}")
        ticket = self.admission.admit(cost, deadline)
        done: asyncio.Future[BatchResult[R]] = asyncio.get_running_loop().create_future()
        entry = _Entry(item, key, priority, ticket, done, trace.get_current_span().get_span_context())
        self._waiting[ticket.number] = entry
        self._arrived.set()
        try:
            return await self._result(entry)
        finally:
            self._waiting.pop(ticket.number, None)
            if ticket.state is TicketState.QUEUED:  # a running ticket holds the engine until its batch ends
                self.admission.finish(ticket)

    async def _result(self, entry: _Entry[T, R]) -> BatchResult[R]:
        left = entry.ticket.deadline.timeout()
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(entry.done), left)
        if entry.done.done():
            return entry.done.result()
        if entry.ticket.state is TicketState.QUEUED:
            raise self.admission.expire(entry.ticket)
        raise DeadlineExceeded(self.admission.stage, "the deadline passed during compute")

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._fill()
                batch = self._take()
                try:
                    await self._execute(batch)
                except Exception as error:  # a bug in the batcher: its callers must not wait for ever
                    log.exception("a batch failed outside the engine")
                    for entry in batch:
                        _fail(entry, error)

    async def _fill(self) -> None:
        """Wait until the next batch is full, at most until its first entry is `max_wait` seconds old."""
        while self._waiting:
            head = self._head()
            age = time.monotonic() - head.ticket.arrived_at
            left = fill_seconds(len(self._candidates(head)), self._max_batch, age, self._max_wait)
            if left <= 0:
                return
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)

    def _head(self) -> _Entry[T, R]:
        return max(self._waiting.values(), key=lambda entry: entry.priority)  # the first of equals: the oldest

    def _candidates(self, head: _Entry[T, R]) -> list[_Entry[T, R]]:
        return batch_of(head, self._waiting.values(), self._max_batch)

    def _take(self) -> list[_Entry[T, R]]:
        """Start the next batch. Entries that cannot finish in time fail with DeadlineExceeded."""
        for entry in [e for e in self._waiting.values() if self.admission.hopeless(e.ticket)]:
            self._waiting.pop(entry.ticket.number)
            _fail(entry, self.admission.expire(entry.ticket))
        if not self._waiting:
            return []
        batch = self._candidates(self._head())
        for entry in batch:
            self._waiting.pop(entry.ticket.number)
            self.admission.start(entry.ticket)
        return batch

    async def _execute(self, batch: list[_Entry[T, R]]) -> None:
        if not batch:
            return
        begun_ns, begun = time.time_ns(), time.monotonic()
        try:
            results = await self._results(batch)
        finally:
            for entry in batch:
                self.admission.finish(entry.ticket)
        seconds = time.monotonic() - begun
        self.admission.observe(sum(e.ticket.cost for e in batch), seconds)
        if self._metrics:
            self._metrics.compute_seconds.record(seconds)
            self._metrics.batch_size.record(len(batch))
        if self._tracing:
            self._trace(batch, begun_ns, time.time_ns())
        for entry, result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                _fail(entry, result)
            elif not entry.done.done():
                entry.done.set_result(BatchResult(result, entry.ticket.queue_seconds, seconds, len(batch)))

    async def _results(self, batch: list[_Entry[T, R]]) -> Sequence[R | BaseException]:
        results = await self._attempt(batch)
        if isinstance(results, BaseException):
            if len(batch) == 1 or self._thread.lost:
                return [results] * len(batch)
            log.warning("a batch of %d failed (%s); retrying each item alone", len(batch), type(results).__name__)
            alone = [await self._attempt([entry]) for entry in batch]
            return [r if isinstance(r, BaseException) else r[0] for r in alone]
        return results

    async def _attempt(self, batch: list[_Entry[T, R]]) -> Sequence[R | BaseException] | BaseException:
        try:
            results = await self._thread.run(self._run, [e.item for e in batch])
        except Exception as error:
            return error
        if len(results) != len(batch):
            return RuntimeError(f"run returned {len(results)} results for {len(batch)} items")
        return results

    def _trace(self, batch: list[_Entry[T, R]], begun_ns: int, ended_ns: int) -> None:
        assert self._tracing  # noqa: S101 - the caller checked
        links = [e.span for e in batch if e.span.is_valid]
        for entry in batch:
            self._tracing.record_work(entry.span, entry.ticket.arrived_ns, begun_ns, ended_ns, links, len(batch))

    async def close(self) -> None:
        """Stop forming batches. Callers that still wait must cancel their own wait."""
        if self._loop_task:
            self._loop_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop_task


def _fail(entry: _Entry[T, R], error: BaseException) -> None:
    if not entry.done.done():
        entry.done.set_exception(error)
        entry.done.exception()  # mark as retrieved: asyncio would log it if the caller has left
