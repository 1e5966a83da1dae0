"""runtime.work.batcher, runtime.work.admission, runtime.work.estimator: batching, admission, estimates."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded, Overloaded, StageUnavailable
from runtime.work.admission import Admission, Ticket, TicketState
from runtime.work.batcher import Batcher
from runtime.work.device_thread import DeviceThread
from runtime.work.estimator import Estimator
from tests.runtime.support import until


class Engine:
    """Doubles numbers. Waits for `release` first; raises what is in `broken`."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.release = threading.Event()
        self.release.set()
        self.broken: dict[Any, Exception] = {}
        self.seconds = 0.0

    def run(self, items: Sequence[Any]) -> list[Any]:
        self.batches.append(list(items))
        self.release.wait(120)
        time.sleep(self.seconds)
        for item in items:
            if item in self.broken:
                raise self.broken[item]
        return [item * 2 for item in items]


@pytest.fixture
def engine() -> Engine:
    return Engine()


def batcher(engine: Engine, *, limit: int = 8, max_batch: int = 4, **kwargs: Any) -> Batcher[Any, Any]:
    admission = Admission("decoder", queue_limit=limit, capacity=max_batch)
    return Batcher(engine.run, admission=admission, thread=DeviceThread(), max_batch=max_batch, **kwargs)


async def held(engine: Engine, b: Batcher[Any, Any]) -> asyncio.Task[Any]:
    """Submit a first item that occupies the engine."""
    engine.release.clear()
    first = asyncio.create_task(b.submit(0, key="held"))
    await until(lambda: engine.batches)
    return first


async def test_queued_items_share_a_batch_up_to_max_batch(engine: Engine) -> None:
    b = batcher(engine)
    first = await held(engine, b)
    tasks = [asyncio.create_task(b.submit(i)) for i in range(1, 7)]
    await until(lambda: b.admission.queued == 6)
    engine.release.set()
    outcomes = await asyncio.gather(first, *tasks)
    assert [o.value for o in outcomes] == [i * 2 for i in range(7)]
    assert engine.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert [o.batch_size for o in outcomes] == [1, 4, 4, 4, 4, 2, 2]


async def test_only_items_with_equal_keys_share_a_batch_oldest_first(engine: Engine) -> None:
    b = batcher(engine)
    first = await held(engine, b)
    tasks = [asyncio.create_task(b.submit(i, key=i % 2)) for i in range(1, 6)]
    await until(lambda: b.admission.queued == 5)
    engine.release.set()
    await asyncio.gather(first, *tasks)
    assert engine.batches[1:] == [[1, 3, 5], [2, 4]]


async def test_batch_waits_for_further_items_up_to_max_wait(engine: Engine) -> None:
    b = batcher(engine, max_wait=60, max_batch=2)
    one = asyncio.create_task(b.submit(1))
    await until(lambda: b.admission.queued == 1)
    two = asyncio.create_task(b.submit(2))
    assert (await one).batch_size == (await two).batch_size == 2
    b = batcher(engine, max_wait=0.2, max_batch=2)
    begun = time.monotonic()
    assert (await asyncio.wait_for(b.submit(3), 60)).batch_size == 1
    assert time.monotonic() - begun > 0.15


async def test_full_queue_refuses_at_once(engine: Engine) -> None:
    b = batcher(engine, limit=3)
    first = await held(engine, b)
    tasks = [asyncio.create_task(b.submit(i)) for i in range(1, 11)]
    await until(lambda: sum(task.done() for task in tasks) == 7)
    assert [task.done() for task in tasks] == [False] * 3 + [True] * 7
    assert b.admission.queued == 3
    for refused in (task.exception() for task in tasks[3:]):
        assert isinstance(refused, Overloaded)
        assert (refused.stage, refused.setting) == ("decoder", "HART_MAX_QUEUED_REQUESTS")
    engine.release.set()
    await asyncio.gather(first, *tasks[:3])
    assert b.admission.load == 0


async def test_expired_queued_item_is_never_run(engine: Engine) -> None:
    b = batcher(engine)
    first = await held(engine, b)
    with pytest.raises(DeadlineExceeded, match="decoder"):
        await b.submit(7, deadline=Deadline.after(0.05))
    assert b.admission.queued == 0
    engine.release.set()
    await first
    await b.submit(8)
    assert engine.batches == [[0], [8]]


async def test_item_that_cannot_meet_its_deadline_is_refused_at_once(engine: Engine) -> None:
    b = batcher(engine)
    engine.seconds = 0.2
    await b.submit(1)
    with pytest.raises(DeadlineExceeded, match="needed"):
        b.submit(2, deadline=Deadline.after(0.1)).send(None)  # raises before it waits for anything
    assert (await b.submit(3, deadline=Deadline.after(60))).value == 6
    assert engine.batches == [[1], [3]]


async def test_cancelled_item_frees_its_slot_at_once(engine: Engine) -> None:
    b = batcher(engine, limit=2)
    first = await held(engine, b)
    one, two = (asyncio.create_task(b.submit(i)) for i in (1, 2))
    await until(lambda: b.admission.queued == 2)
    one.cancel()
    await asyncio.wait([one])
    assert b.admission.queued == 1
    three = asyncio.create_task(b.submit(3))
    engine.release.set()
    assert (await two).value == 4
    assert (await three).value == 6
    await first
    assert [i for batch in engine.batches for i in batch] == [0, 2, 3]


async def test_cancelled_running_item_does_not_affect_its_batch_peers(engine: Engine) -> None:
    b = batcher(engine)
    engine.release.clear()
    one, two = (asyncio.create_task(b.submit(i)) for i in (1, 2))
    await until(lambda: engine.batches == [[1, 2]])
    one.cancel()
    engine.release.set()
    assert (await two).value == 4
    assert one.cancelled()
    assert b.admission.load == 0


async def test_failing_item_does_not_fail_its_batch_peers(engine: Engine) -> None:
    b = batcher(engine)
    engine.broken[2] = ValueError("bad")
    first = await held(engine, b)
    tasks = [asyncio.create_task(b.submit(i)) for i in (1, 2, 3)]
    await until(lambda: b.admission.queued == 3)
    engine.release.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(r, "value", r) for r in (results[0], results[2])] == [2, 6]
    assert isinstance(results[1], ValueError)
    await first


async def test_lost_device_fails_all_waiting_items_as_unavailable(engine: Engine) -> None:
    b, ended = batcher(engine), []
    b._thread.is_fatal = lambda error: isinstance(error, SystemError)
    b._thread.on_fatal = lambda: ended.append(True)
    engine.broken = {1: SystemError("lost")}
    results = await asyncio.gather(*(b.submit(i) for i in range(1, 8)), return_exceptions=True)
    assert [type(result) for result in results] == [StageUnavailable] * 7
    assert engine.batches == [[1, 2, 3, 4]]
    assert ended == [True]
    await until(lambda: b.admission.load == 0)


async def test_wrong_number_of_results_is_an_error() -> None:
    admission = Admission("decoder", queue_limit=8, capacity=4)
    b: Batcher[int, int] = Batcher(
        lambda items: [1] * (len(items) + 1), admission=admission, thread=DeviceThread(), max_batch=4
    )
    with pytest.raises(RuntimeError, match="run returned 2 results for 1 items"):
        await b.submit(1)


async def test_random_cancellations_leak_nothing(engine: Engine) -> None:
    b = batcher(engine, limit=64)
    engine.seconds = 0.0002
    tasks = []
    for i in range(1000):
        tasks.append(asyncio.create_task(b.submit(i)))
        if i % 3 == 0:
            tasks[i // 2].cancel()
        if i % 20 == 0:
            await asyncio.sleep(0.001)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for i, result in enumerate(results):
        if not isinstance(result, asyncio.CancelledError | Overloaded):
            assert not isinstance(result, BaseException)
            assert result.value == 2 * i
    await until(lambda: (b.admission.queued, b.admission.running, b.admission.load) == (0, 0, 0))
    assert not b._waiting


def test_tickets_go_from_queued_to_running_to_done_once() -> None:
    admission = Admission("ar_generator", queue_limit=2, capacity=4)
    ticket = admission.admit(2.0)
    assert (admission.load, admission.queued) == (0.5, 1)
    admission.start(ticket)
    assert (admission.queued, admission.running) == (0, 1)
    with pytest.raises(ValueError, match="running, not queued"):
        admission.start(ticket)
    admission.finish(ticket)
    admission.finish(ticket)
    assert (admission.load, ticket.state) == (0, TicketState.DONE)


@pytest.mark.parametrize("running", [False, True])
def test_load_can_be_read_while_requests_finish(running: bool) -> None:
    admission = Admission("decoder", queue_limit=10, capacity=1)
    leaving: list[Ticket] = []

    class Cost(float):
        """Finishes another request while it is summed, as another thread may at any step of the reader."""

        def __radd__(self, other: float) -> float:
            if leaving:
                admission.finish(leaving.pop())
            return other + float(self)

    tickets = [admission.admit(Cost(1.0)) for _ in range(3)]
    if running:
        for ticket in tickets:
            admission.start(ticket)
    leaving.append(tickets[-1])
    assert admission.load in (2, 3)
    assert admission.load == 2


def test_estimated_wait_follows_from_queue_and_measured_times() -> None:
    admission = Admission("ar_generator", queue_limit=10, capacity=1)
    admission.observe(1.0, 2000.0)  # so that what passes during the test is nothing to it
    admission.start(admission.admit())
    for _ in range(3):
        admission.admit()
    assert admission.estimated_wait() == pytest.approx(8000, abs=100)
    with pytest.raises(DeadlineExceeded):
        admission.admit(deadline=Deadline.after(9500))
    admission.admit(deadline=Deadline.after(11_000))


@pytest.mark.parametrize(
    ("waiting", "cost", "ahead"),
    [(0, 1, 0), (1, 1, 1), (7, 1, 1), (8, 1, 2), (10, 1, 4), (3, 4, 1), (7, 4, 4), (0, 20, 0), (2, 20, 3)],
)
def test_estimated_wait_counts_only_the_batches_ahead(waiting: int, cost: float, ahead: int) -> None:
    admission = Admission("decoder", queue_limit=100, capacity=8)
    admission.observe(1.0, 2000.0)  # so that what passes during the test is nothing to it
    admission.start(admission.admit())
    for _ in range(waiting):
        admission.admit()
    assert admission.estimated_wait(cost) == pytest.approx(2000 * ahead, abs=100)
    own = admission.estimator.fastest(cost)
    with pytest.raises(DeadlineExceeded):
        admission.admit(cost, Deadline.after(2000 * ahead + own - 200))
    admission.admit(cost, Deadline.after(2000 * ahead + own + 200))


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 100)), max_size=30), st.floats(0.1, 200))
def test_estimate_never_exceeds_the_observed_maximum(samples: list[tuple[float, float]], cost: float) -> None:
    estimator = Estimator()
    for seen, seconds in samples:
        estimator.observe(seen, seconds)
    assert 0 <= estimator.fastest(cost) <= max((s for _, s in samples), default=0.0) + 1e-9


def test_estimates_expire_after_the_memory_time() -> None:
    now = [0.0]
    estimator = Estimator(memory=60, clock=lambda: now[0])
    estimator.observe(1, 100.0)
    assert estimator.fastest(1) == 100.0
    now[0] = 61
    assert estimator.fastest(1) == 0.0
