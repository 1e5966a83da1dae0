"""services.ar_generator.scheduler: which requests share a batch, and which run next."""

from __future__ import annotations

import asyncio
from typing import Any

from services.ar_generator.active_request import Admitted
from tests.services.harness import SCALES, ResultOnly, until


async def test_image_is_admitted_then_passes_every_scale(make_harness: Any) -> None:
    harness = make_harness()
    harness.run_free()
    events = await harness.draw("a")
    assert isinstance(events[0], Admitted)
    assert [event.scale for event in events[1:]] == [0, 1, 2, 3]
    assert events[-1].latent is not None
    await harness.at_rest()


async def test_new_requests_at_one_scale_share_a_batch(make_harness: Any) -> None:
    harness = make_harness()
    first = harness.draw("a")
    await until(lambda: harness.seen.get("a"))
    others = [harness.draw(name) for name in "bc"]
    await until(lambda: harness.admission.queued == 2)
    harness.run_free()
    await asyncio.gather(first, *others)
    assert (0, "bc") in harness.engine.log
    assert (1, "bc") in harness.engine.log


async def test_scales_of_batch_one_run_the_oldest_first(make_harness: Any) -> None:
    harness = make_harness()
    tasks = [harness.draw(name) for name in "abc"]
    await until(lambda: len(harness.seen) == 3)
    harness.run_free()
    await asyncio.gather(*tasks)
    narrow = [names for scale, names in harness.engine.log if scale >= 2]
    assert narrow == ["a", "a", "b", "b", "c", "c"]


async def test_new_request_does_not_wait_for_older_ones_to_finish(make_harness: Any) -> None:
    harness = make_harness(starvation_limit=0.0)
    old = harness.draw("a")
    await harness.step(2)
    new = harness.draw("b")
    await until(lambda: harness.seen.get("b") is not None)
    harness.run_free()
    await asyncio.gather(old, new)
    assert harness.engine.log.index((0, "b")) < harness.engine.log.index((3, "a"))


async def test_older_request_yields_at_most_once_in_a_row(make_harness: Any) -> None:
    harness = make_harness(starvation_limit=0.0)
    old = harness.draw("a")
    await harness.step(2)
    new = harness.draw("b")
    await until(lambda: harness.seen.get("b") is not None)
    harness.run_free()
    await asyncio.gather(old, new)
    names = "".join(name for scale, name in harness.engine.log if scale <= 3)
    assert "bb" not in names[: names.rindex("a")]


async def test_more_images_than_slots_finish_in_order(make_harness: Any) -> None:
    harness = make_harness(queue_limit=20)
    tasks = [harness.draw(name) for name in "abcdefghij"]
    harness.run_free()
    await asyncio.gather(*tasks)
    ends = [names for scale, names in harness.engine.log if scale == SCALES - 1]
    assert "".join(ends) == "abcdefghij"
    await harness.at_rest()


async def test_result_only_request_gets_all_events_at_its_end(make_harness: Any) -> None:
    harness = make_harness()
    active = harness.draw("a", kind=ResultOnly)
    await harness.step(SCALES - 1)
    assert [type(event) for event in harness.seen["a"]] == [Admitted]
    harness.run_free()
    events = await active
    assert [event.scale for event in events[1:]] == [0, 1, 2, 3]
    assert events[-1].latent is not None
    assert all(one > 0 for one in harness.scale_times.by_scale())


async def test_new_request_does_not_wait_for_a_result_only_one(make_harness: Any) -> None:
    harness = make_harness(starvation_limit=0.0)
    old = harness.draw("a", kind=ResultOnly)
    await harness.step(2)
    new = harness.draw("b", kind=ResultOnly)
    await until(lambda: harness.admission.queued)
    harness.run_free()
    await asyncio.gather(old, new)
    assert harness.engine.log.index((0, "b")) < harness.engine.log.index((3, "a"))
