"""The same request id again: the work of one image, one answer; with other content a refusal."""

from __future__ import annotations

import asyncio
import uuid

from hart import errors

from benchmarks.drills.harness import Harness
from benchmarks.drills.report import Report


async def repeats(harness: Harness, seconds: float, report: Report) -> None:
    """Five times at once, again later, as a stream, after a cancelled call, and with other content."""
    scales = len((await harness.client.describe()).models[0].shape.scales)
    request_id = uuid.uuid4().hex

    async def generate(prompt: str = "a red heart", seed: int | None = 11) -> bytes:
        return (await harness.client.generate(prompt, seed=seed, request_id=request_id, timeout=60))[0].data

    before = await _images_drawn(harness, scales)
    images = [*await asyncio.gather(*(generate() for _ in range(5))), await generate()]
    async for event in harness.client.stream("a red heart", seed=11, request_id=request_id, timeout=60):
        data = getattr(event, "data", None)
        images += [data] if data else []
    work = await _images_drawn(harness, scales) - before
    report.invariant(
        "five at once, one later and one as a stream get the same answer", len(set(images)) == 1, len(images)
    )
    report.invariant("with the work of one image in the generator and the decoder", work == 1, work)
    await _left_early(harness, scales, report)
    refusals = [
        await _refusal(generate(prompt="a blue house")),
        await _refusal(generate(seed=12)),
        await _refusal(generate(seed=None)),
    ]
    report.invariant("with other content the id is refused, naming request_id", all(refusals), refusals)
    derived = uuid.uuid4().hex
    drawn = [(await harness.client.generate("a red heart", request_id=derived, timeout=60))[0].seed for _ in range(2)]
    report.invariant("an absent seed comes from the id", drawn[0] == drawn[1], drawn)


async def _left_early(harness: Harness, scales: int, report: Report) -> None:
    """The first call is cancelled; the one that joined it still gets the image of the same execution."""
    before = await _images_drawn(harness, scales)
    request_id = uuid.uuid4().hex
    first, second = (
        asyncio.create_task(harness.client.generate("a green tree", seed=3, request_id=request_id, timeout=60))
        for _ in range(2)
    )
    await asyncio.sleep(0.05)
    first.cancel()
    answer = await second
    work = await _images_drawn(harness, scales) - before
    report.invariant(
        "the call that joined keeps the work when the first one is cancelled", len(answer) == 1 and work <= 2, work
    )
    await asyncio.gather(first, return_exceptions=True)


async def _images_drawn(harness: Harness, scales: int) -> float:
    drawn = await harness.total("ar_generator", "hart_batch_size_sum") / scales
    decoded = await harness.total("decoder", "hart_batch_size_sum")
    return max(drawn, decoded) if drawn != decoded else drawn


async def _refusal(asking: object) -> bool:
    try:
        await asking  # type: ignore[misc]
    except errors.InvalidRequest as error:
        return "request_id" in error.fields
    return False
