"""gateway.request.admission: bounds on images in progress. No slot is lost, waiters are served in order."""

import asyncio
import random
from contextlib import suppress

import pytest

from gateway.request.admission import AdmissionController, DecodeBackpressure
from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded, Overloaded
from tests.gateway.support import until


async def test_waiters_are_served_in_order() -> None:
    backpressure, begun = DecodeBackpressure(1), []
    free = asyncio.Event()

    async def image(number: int) -> None:
        async with backpressure.slot(Deadline.none()):
            begun.append(number)
            await free.wait()

    tasks = [asyncio.create_task(image(number)) for number in range(4)]
    await until(lambda: backpressure.waiting == 3)
    assert begun == [0]
    free.set()
    await asyncio.gather(*tasks)
    assert begun == [0, 1, 2, 3]


async def test_slots_follow_the_number_of_generators() -> None:
    slots = 0
    backpressure = DecodeBackpressure(1, lambda: slots)
    free = asyncio.Event()

    async def image(end: asyncio.Event | None = None) -> None:
        async with backpressure.slot(Deadline.none()):
            await (end or free).wait()

    first = asyncio.Event()
    tasks = [asyncio.create_task(image(first)), *(asyncio.create_task(image()) for _ in range(4))]
    await until(lambda: backpressure.waiting == 4)
    assert backpressure.in_progress == 1
    slots = 2
    first.set()
    await until(lambda: backpressure.waiting == 1)
    assert backpressure.in_progress == 3
    free.set()
    await asyncio.gather(*tasks)
    assert (backpressure.in_progress, backpressure.waiting) == (0, 0)


async def test_cancels_and_deadlines_neither_leak_nor_exceed_slots() -> None:
    backpressure, rng, maximum = DecodeBackpressure(2, lambda: 1), random.Random(1), 0

    async def image(seconds: float) -> None:
        nonlocal maximum
        with suppress(DeadlineExceeded):
            async with backpressure.slot(Deadline.after(seconds)):
                maximum = max(maximum, backpressure.in_progress)
                await asyncio.sleep(rng.random() * 0.004)

    tasks = []
    for _ in range(400):
        tasks.append(asyncio.create_task(image(rng.random() * 0.05)))
        if rng.random() < 0.5:
            rng.choice(tasks).cancel()
        if rng.random() < 0.3:
            await asyncio.sleep(0.001)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert maximum == 3
    assert (backpressure.in_progress, backpressure.waiting) == (0, 0)


@pytest.mark.parametrize(("latents", "bottleneck"), [(0, "ar_generator"), (1, "ar_generator"), (2, "decoder")])
async def test_expired_wait_names_the_bottleneck(latents: int, bottleneck: str) -> None:
    backpressure = DecodeBackpressure(2)
    admission = AdmissionController(lambda: 0, lambda stage: 1.0, backpressure)
    with admission.acquire(2) as permit:
        async with permit.image(Deadline.none()) as first, permit.image(Deadline.none()) as second:
            for image in (first, second)[:latents]:
                image.generator_done()
            with pytest.raises(DeadlineExceeded, match=bottleneck):
                async with backpressure.slot(Deadline.after(0.02)):
                    pass
    assert (backpressure.in_progress, backpressure.at_decoder, backpressure.waiting) == (0, 0, 0)
    assert admission.admitted == 0


async def test_image_leaves_the_generators_when_its_latent_arrives() -> None:
    admission = AdmissionController(lambda: 2, lambda stage: 1.0, DecodeBackpressure(4))
    with admission.acquire(2) as permit:
        async with permit.image(Deadline.none()) as image:
            with pytest.raises(Overloaded), admission.acquire(1):
                pass
            image.generator_done()
            with admission.acquire(1):
                assert admission.admitted == 2
    assert admission.admitted == 0


@pytest.mark.parametrize(
    ("held_back", "latent", "stage", "setting"),
    [
        (False, True, "ar_generator", "HART_MAX_QUEUED_REQUESTS"),
        (True, False, "ar_generator", "HART_MAX_QUEUED_REQUESTS"),
        (True, True, "decoder", "HART_MAX_PENDING_DECODES"),
    ],
)
async def test_refusal_names_the_bottleneck_and_its_setting(
    held_back: bool, latent: bool, stage: str, setting: str
) -> None:
    backpressure = DecodeBackpressure(1)
    admission = AdmissionController(lambda: 3, lambda stage: 1.0, backpressure)
    with admission.acquire(1) as permit:
        async with permit.image(Deadline.none()) as image:
            if latent:
                image.generator_done()
            waiting = asyncio.create_task(_take_slot(backpressure)) if held_back else None
            await asyncio.sleep(0)
            with admission.acquire(3 - admission.admitted), pytest.raises(Overloaded) as caught, admission.acquire(1):
                pass
            assert (caught.value.stage, caught.value.setting) == (stage, setting)
            if waiting:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)


async def _take_slot(backpressure: DecodeBackpressure) -> None:
    async with backpressure.slot(Deadline.none()):
        pass
