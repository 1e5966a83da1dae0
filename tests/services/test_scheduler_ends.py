"""How pictures end before they are drawn: cancels, failures, time. What they held is free again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded, Overloaded, StageUnavailable
from services.ar_generator.active_request import Admitted, ScaleDone
from tests.services.harness import SCALES, Quiet, until


async def test_a_cancelled_picture_frees_its_slot_at_the_next_boundary_and_neighbours_go_on(make_rig: Any) -> None:
    rig = make_rig()
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
    await rig.at_rest()


async def test_a_cancelled_waiting_picture_frees_its_place_at_once(make_rig: Any) -> None:
    rig = make_rig(queue_limit=4)
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


async def test_one_picture_that_fails_takes_no_other_with_it(make_rig: Any) -> None:
    rig = make_rig()
    rig.engine.fail = {"b"}
    pictures = [rig.draw(name) for name in "abc"]
    await until(lambda: len(rig.seen) == 3)
    rig.run_free()
    a, b, c = await asyncio.gather(*pictures, return_exceptions=True)
    assert isinstance(b, OSError)
    assert a[-1].latent is not None
    assert c[-1].latent is not None
    await rig.at_rest()


async def test_a_picture_whose_time_is_over_stops_at_the_next_boundary(make_rig: Any) -> None:
    rig = make_rig()
    late = rig.draw("a", Deadline.after(0.2))
    with pytest.raises(DeadlineExceeded, match="ar_generator"):
        await late
    rig.run_free()
    await rig.at_rest()
    assert len(rig.engine.log) <= 1


async def test_a_picture_that_cannot_be_finished_in_time_is_refused_at_once(make_rig: Any) -> None:
    rig = make_rig()
    rig.scale_times.observe_warm_up([[(1, 10.0)]] * SCALES)
    active = rig.draw("a", Deadline.after(5.0))
    await asyncio.sleep(0)
    assert active.done(), "it was kept waiting"
    with pytest.raises(DeadlineExceeded, match="ar_generator"):
        await active
    assert rig.engine.log == []


async def test_a_running_picture_that_can_no_longer_be_finished_is_stopped(make_rig: Any) -> None:
    rig = make_rig()
    active = rig.draw("a", Deadline.after(60.0))
    await until(lambda: rig.seen.get("a"))
    rig.scale_times.observe_warm_up([[(1, 100.0)]] * SCALES)
    await rig.step()
    rig.engine.steps.release()  # the engine may have begun another before the first one's end was heard of
    with pytest.raises(DeadlineExceeded, match="scale"):
        await asyncio.wait_for(active, 30.0)
    await rig.at_rest()
    assert len(rig.engine.log) <= 2


async def test_a_quiet_picture_that_can_no_longer_be_finished_is_stopped(make_rig: Any) -> None:
    rig = make_rig()
    rig.scale_times.observe_warm_up([[(1, 1.0)]] * SCALES)
    active = rig.draw("a", Deadline.after(1.0 * SCALES + 0.2), kind=Quiet)
    await until(lambda: rig.seen.get("a"))
    await asyncio.sleep(1.4)  # the first scale takes longer than expected: the rest cannot be done in time
    await rig.step()
    with pytest.raises(DeadlineExceeded, match="scale 1"):
        await asyncio.wait_for(active, 30.0)
    await rig.at_rest()
    assert len(rig.engine.log) == 1


async def test_a_picture_that_cannot_begin_takes_no_other_with_it(make_rig: Any) -> None:
    rig = make_rig()
    rig.engine.bad = {"b"}
    pictures = [rig.draw(name) for name in "abc"]
    rig.run_free()
    a, b, c = await asyncio.gather(*pictures, return_exceptions=True)
    assert isinstance(b, ValueError)
    assert a[-1].latent is not None
    assert c[-1].latent is not None
    await rig.at_rest()


async def test_a_device_that_is_lost_at_the_beginning_ends_the_process(make_rig: Any) -> None:
    rig = make_rig()
    rig.engine.bad = {"a"}
    ends: list[bool] = []
    rig.thread.is_fatal = lambda error: isinstance(error, ValueError)
    rig.thread.on_fatal = lambda: ends.append(True)
    with pytest.raises(StageUnavailable, match="device is lost"):
        await rig.draw("a")
    assert ends == [True]


async def test_a_scheduler_that_failed_serves_the_next_request(make_rig: Any) -> None:
    rig = make_rig()
    rig.run_free()
    rig.engine.run = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        await rig.draw("a")
    del rig.engine.run
    assert (await rig.draw("b"))[-1].latent is not None
    await rig.at_rest()


async def test_after_many_random_cancels_every_slot_and_place_is_free(make_rig: Any) -> None:
    rig = make_rig(queue_limit=200, starvation_limit=0.001)
    rig.run_free()
    rig.run_free()
    pictures = [rig.draw(chr(200 + number)) for number in range(100)]
    for number, active in enumerate(pictures):
        if number % 3:
            await asyncio.sleep(0.001)
            active.cancel()
    results = await asyncio.gather(*pictures, return_exceptions=True)
    await rig.at_rest()
    finished = [result for result in results if isinstance(result, list)]
    assert len(finished) >= 34
    assert all(result[-1].latent is not None for result in finished)
