"""services.ar_generator.scheduler: cancellation, failure and deadlines release what a request held."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded, Overloaded, StageUnavailable
from services.ar_generator.active_request import Admitted, ScaleDone
from tests.services.harness import SCALES, ResultOnly, until


async def test_cancelled_image_frees_its_slot_at_the_next_scale(make_harness: Any) -> None:
    harness = make_harness()
    tasks = {name: harness.draw(name) for name in "abcde"}
    await until(lambda: len(harness.seen) == 5 and harness.engine.free == 0)
    await harness.step()
    assert harness.seen["e"] == []
    tasks["b"].cancel()
    await harness.step()  # the one that was running when b was cancelled
    await until(lambda: harness.seen["e"] != [])
    assert isinstance(harness.seen["e"][0], Admitted)
    harness.run_free()
    done = await asyncio.gather(*(task for name, task in tasks.items() if name != "b"))
    assert all(isinstance(events[-1], ScaleDone) and events[-1].latent is not None for events in done)
    assert sum("b" in names for _, names in harness.engine.log) <= 2
    await harness.at_rest()


async def test_cancelled_queued_image_frees_its_place_at_once(make_harness: Any) -> None:
    harness = make_harness(queue_limit=4)
    running = [harness.draw(name) for name in "abcd"]
    await until(lambda: harness.engine.free == 0)
    waiting = [harness.draw(name) for name in "efgh"]
    await until(lambda: harness.admission.queued == 4)
    with pytest.raises(Overloaded):
        await harness.draw("i")
    waiting[1].cancel()
    await asyncio.wait({waiting[1]})
    assert harness.admission.queued == 3
    waiting[1] = harness.draw("j")
    harness.run_free()
    await asyncio.gather(*running, *waiting)
    assert not any("f" in names for _, names in harness.engine.log)


async def test_failed_image_does_not_fail_its_batch_peers(make_harness: Any) -> None:
    harness = make_harness()
    harness.engine.fail = {"b"}
    tasks = [harness.draw(name) for name in "abc"]
    await until(lambda: len(harness.seen) == 3)
    harness.run_free()
    a, b, c = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(b, OSError)
    assert isinstance(a, list)
    assert isinstance(c, list)
    assert a[-1].latent is not None
    assert c[-1].latent is not None
    await harness.at_rest()


async def test_expired_image_stops_at_the_next_scale(make_harness: Any) -> None:
    harness = make_harness()
    late = harness.draw("a", Deadline.after(0.2))
    with pytest.raises(DeadlineExceeded, match="ar_generator"):
        await late
    harness.run_free()
    await harness.at_rest()
    assert len(harness.engine.log) <= 1


async def test_image_that_cannot_meet_its_deadline_is_refused_at_once(make_harness: Any) -> None:
    harness = make_harness()
    harness.scale_times.observe_warm_up([[(1, 10.0)]] * SCALES)
    active = harness.draw("a", Deadline.after(5.0))
    await asyncio.sleep(0)
    assert active.done(), "the request waited"
    with pytest.raises(DeadlineExceeded, match="ar_generator"):
        await active
    assert harness.engine.log == []


async def test_running_image_that_cannot_meet_its_deadline_is_stopped(make_harness: Any) -> None:
    harness = make_harness()
    active = harness.draw("a", Deadline.after(60.0))
    await until(lambda: harness.seen.get("a"))
    harness.scale_times.observe_warm_up([[(1, 100.0)]] * SCALES)
    await harness.step()
    harness.engine.steps.release()  # the engine may begin another step before the first one's end is processed
    with pytest.raises(DeadlineExceeded, match="scale"):
        await asyncio.wait_for(active, 30.0)
    await harness.at_rest()
    assert len(harness.engine.log) <= 2


async def test_result_only_image_that_cannot_meet_its_deadline_is_stopped(make_harness: Any) -> None:
    harness = make_harness()
    harness.scale_times.observe_warm_up([[(1, 1.0)]] * SCALES)
    active = harness.draw("a", Deadline.after(1.0 * SCALES + 0.2), kind=ResultOnly)
    await until(lambda: harness.seen.get("a"))
    await asyncio.sleep(1.4)  # the first scale takes longer than estimated: the rest misses the deadline
    await harness.step()
    with pytest.raises(DeadlineExceeded, match="scale 1"):
        await asyncio.wait_for(active, 30.0)
    await harness.at_rest()
    assert len(harness.engine.log) == 1


async def test_image_that_cannot_begin_does_not_fail_its_batch_peers(make_harness: Any) -> None:
    harness = make_harness()
    harness.engine.bad = {"b"}
    tasks = [harness.draw(name) for name in "abc"]
    harness.run_free()
    a, b, c = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(b, ValueError)
    assert isinstance(a, list)
    assert isinstance(c, list)
    assert a[-1].latent is not None
    assert c[-1].latent is not None
    await harness.at_rest()


async def test_device_lost_at_begin_is_fatal(make_harness: Any) -> None:
    harness = make_harness()
    harness.engine.bad = {"a"}
    ends: list[bool] = []
    harness.thread.is_fatal = lambda error: isinstance(error, ValueError)
    harness.thread.on_fatal = lambda: ends.append(True)
    with pytest.raises(StageUnavailable, match="device is lost"):
        await harness.draw("a")
    assert ends == [True]


async def test_scheduler_recovers_from_a_failed_step(make_harness: Any) -> None:
    harness = make_harness()
    harness.run_free()
    harness.engine.run = None
    with pytest.raises(TypeError):
        await harness.draw("a")
    del harness.engine.run
    assert (await harness.draw("b"))[-1].latent is not None
    await harness.at_rest()


async def test_random_cancellations_leak_no_slot(make_harness: Any) -> None:
    harness = make_harness(queue_limit=200, starvation_limit=0.001)
    harness.run_free()
    harness.run_free()
    tasks = [harness.draw(chr(200 + number)) for number in range(100)]
    for number, active in enumerate(tasks):
        if number % 3:
            await asyncio.sleep(0.001)
            active.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await harness.at_rest()
    finished = [result for result in results if isinstance(result, list)]
    assert len(finished) >= 34
    assert all(result[-1].latent is not None for result in finished)
