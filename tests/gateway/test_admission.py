"""The gate: never more pictures than places, first come first served, and no place is lost."""

import asyncio
import random
from contextlib import suppress

import pytest

from gateway.request.admission import AdmissionController, DecodeBackpressure
from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded, Overloaded


async def test_the_first_in_line_is_the_first_to_begin():
    backpressure, begun = DecodeBackpressure(1), []
    free = asyncio.Event()

    async def picture(number: int) -> None:
        async with backpressure.place(Deadline.none()):
            begun.append(number)
            await free.wait()

    tasks = [asyncio.create_task(picture(number)) for number in range(4)]
    await asyncio.sleep(0.01)
    assert begun == [0]
    assert backpressure.waiting == 3
    free.set()
    await asyncio.gather(*tasks)
    assert begun == [0, 1, 2, 3]


async def test_a_new_generators_slots_are_places_too():
    slots = 0
    backpressure = DecodeBackpressure(1, lambda: slots)
    free = asyncio.Event()

    async def picture(until: asyncio.Event | None = None) -> None:
        async with backpressure.place(Deadline.none()):
            await (until or free).wait()

    first = asyncio.Event()
    tasks = [asyncio.create_task(picture(first)), *(asyncio.create_task(picture()) for _ in range(4))]
    await asyncio.sleep(0.01)
    assert backpressure.begun == 1
    slots = 2
    first.set()
    await asyncio.sleep(0.01)
    assert backpressure.begun == 3
    free.set()
    await asyncio.gather(*tasks)
    assert (backpressure.begun, backpressure.waiting) == (0, 0)


async def test_cancels_and_deadlines_at_any_moment_lose_no_place_and_never_exceed_them():
    backpressure, rng, most = DecodeBackpressure(2, lambda: 1), random.Random(1), 0

    async def picture(seconds: float) -> None:
        nonlocal most
        with suppress(DeadlineExceeded):
            async with backpressure.place(Deadline.after(seconds)):
                most = max(most, backpressure.begun)
                await asyncio.sleep(rng.random() * 0.004)

    tasks = []
    for _ in range(400):
        tasks.append(asyncio.create_task(picture(rng.random() * 0.05)))
        if rng.random() < 0.5:
            rng.choice(tasks).cancel()
        if rng.random() < 0.3:
            await asyncio.sleep(0.001)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 3
    assert (backpressure.begun, backpressure.waiting) == (0, 0)


@pytest.mark.parametrize(("come", "named"), [(0, "ar_generator"), (1, "ar_generator"), (2, "decoder")])
async def test_who_waits_too_long_is_told_the_stage_that_is_slow(come, named):
    backpressure = DecodeBackpressure(2)
    async with backpressure.place(Deadline.none()) as first, backpressure.place(Deadline.none()) as second:
        for latent_came in (first, second)[:come]:
            latent_came()
        with pytest.raises(DeadlineExceeded, match=named):
            async with backpressure.place(Deadline.after(0.02)):
                pass
    assert (backpressure.begun, backpressure.come, backpressure.waiting) == (0, 0, 0)


@pytest.mark.parametrize(
    ("held_back", "latent", "named", "knob"),
    [
        (False, True, "ar_generator", "HART_MAX_QUEUED_REQUESTS"),
        (True, False, "ar_generator", "HART_MAX_QUEUED_REQUESTS"),
        (True, True, "decoder", "HART_MAX_PENDING_DECODES"),
    ],
)
async def test_a_full_house_names_the_stage_that_fills_it(held_back, latent, named, setting):
    backpressure = DecodeBackpressure(1)
    admission = AdmissionController(lambda: 2, lambda stage: 1.0, backpressure)
    async with backpressure.place(Deadline.none()) as latent_came:
        if latent:
            latent_came()
        waiting = asyncio.create_task(anext(aiter_of(backpressure))) if held_back else None
        await asyncio.sleep(0)
        with admission.admitted(2), pytest.raises(Overloaded) as caught, admission.admitted(1):
            pass
        assert (caught.value.stage, caught.value.setting) == (named, setting)
        if waiting:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


async def aiter_of(backpressure: DecodeBackpressure):
    async with backpressure.place(Deadline.none()):
        yield
