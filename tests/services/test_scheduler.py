"""Laws of the scheduler, with an engine whose every step the test permits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime.admission import Admission
from runtime.deadline import Deadline
from runtime.engine import EngineThread
from runtime.errors import DeadlineExceeded, Overloaded
from runtime.telemetry import Telemetry
from services.ar_generator.engine import GeneratorEngine, Step
from services.ar_generator.pace import Pace
from services.ar_generator.picture import Admitted, ScaleDone
from services.ar_generator.scheduler import Scheduler

SCALES = 4


class Name(str):
    """A wish as far as the scheduler looks into it."""

    quiet = False


class Quiet(Name):
    quiet = True


@dataclass
class State:
    name: str
    scale: int = 0


class Engine:
    """Two wide scales, then two narrow ones. A step waits for `steps`; `log` says who took which."""

    scales = SCALES
    slots = 4
    widths = (4, 4, 1, 1)
    advance_on = GeneratorEngine.advance_on

    def __init__(self) -> None:
        self.steps = threading.Semaphore(0)
        self.log: list[tuple[int, str]] = []
        self.free = self.slots
        self.fail: set[str] = set()
        self.bad: set[str] = set()

    def begin(self, wish: Any) -> State:
        if wish in self.bad:
            raise ValueError("cannot begin")
        assert self.free > 0
        self.free -= 1
        return State(wish)

    def release(self, state: State) -> None:
        self.free += 1

    def advance(self, pictures: list[tuple[State, Any]]) -> Step:
        assert self.steps.acquire(timeout=20)
        self.log.append((pictures[0][0].scale, "".join(state.name for state, _ in pictures)))
        latents: list[Any] = []
        for state, _ in pictures:
            failed = state.name in self.fail
            state.scale += not failed
            latents.append(OSError("broken") if failed else np.zeros(1) if state.scale == SCALES else None)
        return Step(latents, time.time_ns(), 0.001)


class Rig(SimpleNamespace):
    """A scheduler, its engine, and pictures named by letters."""

    engine: Engine
    scheduler: Scheduler
    admission: Admission

    def draw(
        self, name: str, deadline: Deadline | None = None, kind: Callable[[str], Any] = Name
    ) -> asyncio.Task[list[Any]]:
        async def collect() -> list[Any]:
            seen = self.seen.setdefault(name, [])
            async with aclosing(self.scheduler.draw(kind(name), deadline or Deadline.none())) as events:
                async for _, event in events:
                    seen.append(event)
            return seen

        return asyncio.create_task(collect(), name=name)

    async def step(self, count: int = 1) -> None:
        """Lets the engine take so many steps, and waits until they are taken."""
        wanted = len(self.engine.log) + count
        for _ in range(count):
            self.engine.steps.release()
        await until(lambda: len(self.engine.log) >= wanted)
        await asyncio.sleep(0.02)

    def run_free(self) -> None:
        """No step waits any longer."""
        for _ in range(1000):
            self.engine.steps.release()


async def until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        await asyncio.sleep(0.002)


@pytest.fixture
async def make() -> AsyncIterator[Any]:
    rigs: list[Rig] = []

    def build(patience: float = 1000.0, queue_limit: int = 10) -> Rig:
        telemetry, engine, thread = Telemetry("ar_generator"), Engine(), EngineThread()
        pace = Pace(SCALES)
        admission = Admission("ar_generator", queue_limit=queue_limit, capacity=Engine.slots, estimator=pace)
        scheduler = Scheduler(
            engine,  # type: ignore[arg-type]
            admission=admission,
            pace=pace,
            thread=thread,
            patience=patience,
            metrics=telemetry.metrics,
            tracing=telemetry.tracing,
        )
        rigs.append(Rig(engine=engine, scheduler=scheduler, admission=admission, pace=pace, thread=thread, seen={}))
        return rigs[-1]

    yield build
    for rig in rigs:
        rig.run_free()
        await rig.scheduler.close()
        rig.thread.close()


async def test_a_picture_is_admitted_and_then_goes_through_every_scale(make: Any) -> None:
    rig = make()
    rig.run_free()
    events = await rig.draw("a")
    assert isinstance(events[0], Admitted)
    assert [event.scale for event in events[1:]] == [0, 1, 2, 3]
    assert events[-1].latent is not None
    assert rig.engine.free == rig.engine.slots
    assert (rig.admission.queued, rig.admission.running) == (0, 0)


async def test_newcomers_at_the_same_scale_share_a_batch(make: Any) -> None:
    rig = make()
    first = rig.draw("a")
    await until(lambda: rig.seen.get("a"))
    others = [rig.draw(name) for name in "bc"]
    await asyncio.sleep(0.02)
    rig.run_free()
    await asyncio.gather(first, *others)
    assert (0, "bc") in rig.engine.log
    assert (1, "bc") in rig.engine.log


async def test_at_narrow_scales_the_oldest_goes_alone_and_first(make: Any) -> None:
    rig = make()
    pictures = [rig.draw(name) for name in "abc"]
    await until(lambda: len(rig.seen) == 3)
    rig.run_free()
    await asyncio.gather(*pictures)
    narrow = [who for scale, who in rig.engine.log if scale >= 2]
    assert narrow == ["a", "a", "b", "b", "c", "c"]


async def test_a_newcomer_does_not_wait_for_an_older_picture_to_finish(make: Any) -> None:
    rig = make(patience=0.0)
    old = rig.draw("a")
    await rig.step(2)
    new = rig.draw("b")
    await until(lambda: rig.seen.get("b") is not None)
    rig.run_free()
    await asyncio.gather(old, new)
    assert rig.engine.log.index((0, "b")) < rig.engine.log.index((3, "a"))


async def test_an_older_picture_at_a_large_scale_gives_way_once_and_not_twice_in_a_row(make: Any) -> None:
    rig = make(patience=0.0)
    old = rig.draw("a")
    await rig.step(2)
    new = rig.draw("b")
    await until(lambda: rig.seen.get("b") is not None)
    rig.run_free()
    await asyncio.gather(old, new)
    who = "".join(name for scale, name in rig.engine.log if scale <= 3)
    assert "bb" not in who[: who.rindex("a")]


async def test_more_pictures_than_slots_all_finish_in_order(make: Any) -> None:
    rig = make(queue_limit=20)
    pictures = [rig.draw(name) for name in "abcdefghij"]
    rig.run_free()
    await asyncio.gather(*pictures)
    ends = [who for scale, who in rig.engine.log if scale == SCALES - 1]
    assert "".join(ends) == "abcdefghij"
    assert rig.engine.free == rig.engine.slots


async def test_a_cancelled_picture_frees_its_slot_at_the_next_boundary_and_neighbours_go_on(make: Any) -> None:
    rig = make()
    pictures = {name: rig.draw(name) for name in "abcde"}
    await until(lambda: len(rig.seen) == 5 and rig.engine.free == 0)
    await rig.step()
    assert rig.seen["e"] == []
    pictures["b"].cancel()
    await rig.step()  # the one that was running when b went
    await until(lambda: rig.seen["e"] != [])
    assert isinstance(rig.seen["e"][0], Admitted)
    rig.run_free()
    done = await asyncio.gather(*(task for name, task in pictures.items() if name != "b"))
    assert all(isinstance(events[-1], ScaleDone) and events[-1].latent is not None for events in done)
    assert sum("b" in who for _, who in rig.engine.log) <= 2
    assert rig.engine.free == rig.engine.slots


async def test_a_cancelled_waiting_picture_frees_its_place_at_once(make: Any) -> None:
    rig = make(queue_limit=4)
    running = [rig.draw(name) for name in "abcd"]
    await until(lambda: rig.engine.free == 0)
    waiting = [rig.draw(name) for name in "efgh"]
    await until(lambda: rig.admission.queued == 4)
    with pytest.raises(Overloaded):
        await rig.draw("i")
    waiting[1].cancel()
    await asyncio.wait({waiting[1]})
    assert rig.admission.queued == 3
    waiting[1] = rig.draw("j")
    rig.run_free()
    await asyncio.gather(*running, *waiting)
    assert not any("f" in who for _, who in rig.engine.log)


async def test_one_picture_that_fails_takes_no_other_with_it(make: Any) -> None:
    rig = make()
    rig.engine.fail = {"b"}
    pictures = [rig.draw(name) for name in "abc"]
    await until(lambda: len(rig.seen) == 3)
    rig.run_free()
    a, b, c = await asyncio.gather(*pictures, return_exceptions=True)
    assert isinstance(b, OSError)
    assert a[-1].latent is not None
    assert c[-1].latent is not None
    assert rig.engine.free == rig.engine.slots
    assert rig.admission.running == 0


async def test_a_picture_whose_time_is_over_stops_at_the_next_boundary(make: Any) -> None:
    rig = make()
    late = rig.draw("a", Deadline.after(0.2))
    await until(lambda: rig.seen.get("a"))
    with pytest.raises(DeadlineExceeded, match="ar_generator"):
        await late
    rig.run_free()
    await until(lambda: rig.engine.free == rig.engine.slots)
    assert len(rig.engine.log) <= 1


async def test_a_picture_that_cannot_be_finished_in_time_is_refused_at_once(make: Any) -> None:
    rig = make()
    rig.pace.observe_warm_up([[(1, 10.0)]] * SCALES)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="ar_generator"):
        await rig.draw("a", Deadline.after(5.0))
    assert time.monotonic() - begun < 1.0
    assert rig.engine.log == []


async def test_a_running_picture_that_can_no_longer_be_finished_is_stopped(make: Any) -> None:
    rig = make()
    picture = rig.draw("a", Deadline.after(5.0))
    await until(lambda: rig.seen.get("a"))
    rig.pace.observe_warm_up([[(1, 10.0)]] * SCALES)
    await rig.step()
    await rig.step()  # the engine had begun this one before the first one's end was heard of
    with pytest.raises(DeadlineExceeded, match="scale"):
        await asyncio.wait_for(picture, 2.0)
    await until(lambda: rig.engine.free == rig.engine.slots)


async def test_a_quiet_picture_hears_of_its_scales_when_all_are_drawn(make: Any) -> None:
    rig = make()
    picture = rig.draw("a", kind=Quiet)
    await rig.step(SCALES - 1)
    assert [type(event) for event in rig.seen["a"]] == [Admitted]
    rig.run_free()
    events = await picture
    assert [event.scale for event in events[1:]] == [0, 1, 2, 3]
    assert events[-1].latent is not None
    assert all(one > 0 for one in rig.pace.by_scale())


async def test_a_quiet_picture_that_can_no_longer_be_finished_is_stopped(make: Any) -> None:
    rig = make()
    picture = rig.draw("a", Deadline.after(5.0), kind=Quiet)
    await until(lambda: rig.seen.get("a"))
    rig.pace.observe_warm_up([[(1, 10.0)]] * SCALES)
    await rig.step()
    with pytest.raises(DeadlineExceeded, match="scale 1"):
        await asyncio.wait_for(picture, 2.0)
    await until(lambda: rig.engine.free == rig.engine.slots)
    assert len(rig.engine.log) == 1


async def test_a_newcomer_does_not_wait_for_a_quiet_picture_to_finish(make: Any) -> None:
    rig = make(patience=0.0)
    old = rig.draw("a", kind=Quiet)
    await rig.step(2)
    new = rig.draw("b", kind=Quiet)
    await until(lambda: rig.admission.queued)
    rig.run_free()
    await asyncio.gather(old, new)
    assert rig.engine.log.index((0, "b")) < rig.engine.log.index((3, "a"))


async def test_a_picture_that_cannot_begin_takes_no_other_with_it(make: Any) -> None:
    rig = make()
    rig.engine.bad = {"b"}
    pictures = [rig.draw(name) for name in "abc"]
    rig.run_free()
    a, b, c = await asyncio.gather(*pictures, return_exceptions=True)
    assert isinstance(b, ValueError)
    assert a[-1].latent is not None
    assert c[-1].latent is not None
    await until(lambda: rig.engine.free == rig.engine.slots)  # the last news comes just before the slot is free
    assert rig.admission.running == 0


async def test_a_device_that_is_lost_at_the_beginning_ends_the_process(make: Any) -> None:
    rig = make()
    rig.engine.bad = {"a"}
    ends: list[bool] = []
    rig.thread.is_fatal = lambda error: isinstance(error, ValueError)
    rig.thread.on_fatal = lambda: ends.append(True)
    with pytest.raises(ValueError, match="cannot begin"):
        await rig.draw("a")
    assert ends == [True]


async def test_a_scheduler_that_failed_serves_the_next_request(make: Any) -> None:
    rig = make()
    rig.run_free()
    rig.engine.advance_on = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        await rig.draw("a")
    del rig.engine.advance_on
    assert (await rig.draw("b"))[-1].latent is not None
    assert rig.engine.free == rig.engine.slots


async def test_after_many_random_cancels_every_slot_and_place_is_free(make: Any) -> None:
    rig = make(queue_limit=200, patience=0.001)
    rig.run_free()
    rig.run_free()
    pictures = [rig.draw(chr(200 + number)) for number in range(100)]
    for number, picture in enumerate(pictures):
        if number % 3:
            await asyncio.sleep(0.001)
            picture.cancel()
    results = await asyncio.gather(*pictures, return_exceptions=True)
    await until(lambda: rig.engine.free == rig.engine.slots)
    assert (rig.admission.queued, rig.admission.running) == (0, 0)
    finished = [result for result in results if isinstance(result, list)]
    assert len(finished) >= 34
    assert all(result[-1].latent is not None for result in finished)
