"""Which pictures the scheduler lets advance together, and which next."""

from __future__ import annotations

import asyncio
from typing import Any

from services.ar_generator.active_request import Admitted
from tests.services.harness import SCALES, Quiet, until


async def test_a_picture_is_admitted_and_then_goes_through_every_scale(make_rig: Any) -> None:
    rig = make_rig()
    rig.run_free()
    events = await rig.draw("a")
    assert isinstance(events[0], Admitted)
    assert [event.scale for event in events[1:]] == [0, 1, 2, 3]
    assert events[-1].latent is not None
    await rig.at_rest()


async def test_newcomers_at_the_same_scale_share_a_batch(make_rig: Any) -> None:
    rig = make_rig()
    first = rig.draw("a")
    await until(lambda: rig.seen.get("a"))
    others = [rig.draw(name) for name in "bc"]
    await asyncio.sleep(0.02)
    rig.run_free()
    await asyncio.gather(first, *others)
    assert (0, "bc") in rig.engine.log
    assert (1, "bc") in rig.engine.log


async def test_at_narrow_scales_the_oldest_goes_alone_and_first(make_rig: Any) -> None:
    rig = make_rig()
    pictures = [rig.draw(name) for name in "abc"]
    await until(lambda: len(rig.seen) == 3)
    rig.run_free()
    await asyncio.gather(*pictures)
    narrow = [who for scale, who in rig.engine.log if scale >= 2]
    assert narrow == ["a", "a", "b", "b", "c", "c"]


async def test_a_newcomer_does_not_wait_for_an_older_picture_to_finish(make_rig: Any) -> None:
    rig = make_rig(starvation_limit=0.0)
    old = rig.draw("a")
    await rig.step(2)
    new = rig.draw("b")
    await until(lambda: rig.seen.get("b") is not None)
    rig.run_free()
    await asyncio.gather(old, new)
    assert rig.engine.log.index((0, "b")) < rig.engine.log.index((3, "a"))


async def test_an_older_picture_at_a_large_scale_gives_way_once_and_not_twice_in_a_row(make_rig: Any) -> None:
    rig = make_rig(starvation_limit=0.0)
    old = rig.draw("a")
    await rig.step(2)
    new = rig.draw("b")
    await until(lambda: rig.seen.get("b") is not None)
    rig.run_free()
    await asyncio.gather(old, new)
    who = "".join(name for scale, name in rig.engine.log if scale <= 3)
    assert "bb" not in who[: who.rindex("a")]


async def test_more_pictures_than_slots_all_finish_in_order(make_rig: Any) -> None:
    rig = make_rig(queue_limit=20)
    pictures = [rig.draw(name) for name in "abcdefghij"]
    rig.run_free()
    await asyncio.gather(*pictures)
    ends = [who for scale, who in rig.engine.log if scale == SCALES - 1]
    assert "".join(ends) == "abcdefghij"
    await rig.at_rest()


async def test_a_quiet_picture_hears_of_its_scales_when_all_are_drawn(make_rig: Any) -> None:
    rig = make_rig()
    active = rig.draw("a", kind=Quiet)
    await rig.step(SCALES - 1)
    assert [type(event) for event in rig.seen["a"]] == [Admitted]
    rig.run_free()
    events = await active
    assert [event.scale for event in events[1:]] == [0, 1, 2, 3]
    assert events[-1].latent is not None
    assert all(one > 0 for one in rig.scale_times.by_scale())


async def test_a_newcomer_does_not_wait_for_a_quiet_picture_to_finish(make_rig: Any) -> None:
    rig = make_rig(starvation_limit=0.0)
    old = rig.draw("a", kind=Quiet)
    await rig.step(2)
    new = rig.draw("b", kind=Quiet)
    await until(lambda: rig.admission.queued)
    rig.run_free()
    await asyncio.gather(old, new)
    assert rig.engine.log.index((0, "b")) < rig.engine.log.index((3, "a"))
