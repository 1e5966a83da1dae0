"""The same request id again: one picture's work, one answer; with other content a refusal."""

from __future__ import annotations

import asyncio
import uuid

from hart import errors

from benchmarks.drills.report import Report
from benchmarks.drills.site import Site


async def repeats(site: Site, seconds: float, report: Report) -> None:
    """Twice at once, again later, as a stream, after a caller has left, and with other content."""
    scales = len((await site.client.describe()).models[0].shape.scales)
    request_id = uuid.uuid4().hex

    async def ask(prompt: str = "a red heart", seed: int | None = 11) -> bytes:
        return (await site.client.generate(prompt, seed=seed, request_id=request_id, timeout=60))[0].data

    before = await _pictures(site, scales)
    pictures = [*await asyncio.gather(*(ask() for _ in range(5))), await ask()]
    async for event in site.client.stream("a red heart", seed=11, request_id=request_id, timeout=60):
        data = getattr(event, "data", None)
        pictures += [data] if data else []
    work = await _pictures(site, scales) - before
    report.law(
        "five at once, one later and one as a stream get the same answer", len(set(pictures)) == 1, len(pictures)
    )
    report.law("for one picture's work in the generator and the decoder", work == 1, work)
    await _left_early(site, scales, report)
    refusals = [
        await _refusal(ask(prompt="a blue house")),
        await _refusal(ask(seed=12)),
        await _refusal(ask(seed=None)),
    ]
    report.law("with other content the id is refused by name", all(refusals), refusals)
    derived = uuid.uuid4().hex
    drawn = [(await site.client.generate("a red heart", request_id=derived, timeout=60))[0].seed for _ in range(2)]
    report.law("an absent seed comes from the id", drawn[0] == drawn[1], drawn)


async def _left_early(site: Site, scales: int, report: Report) -> None:
    """The first caller goes away; who joined it still gets the picture, of the same work."""
    before = await _pictures(site, scales)
    request_id = uuid.uuid4().hex
    first, second = (
        asyncio.create_task(site.client.generate("a green tree", seed=3, request_id=request_id, timeout=60))
        for _ in range(2)
    )
    await asyncio.sleep(0.05)
    first.cancel()
    answer = await second
    work = await _pictures(site, scales) - before
    report.law("who joined keeps the work when the first caller leaves", len(answer) == 1 and work <= 2, work)
    await asyncio.gather(first, return_exceptions=True)


async def _pictures(site: Site, scales: int) -> float:
    drawn = await site.total("ar_generator", "hart_batch_size_sum") / scales
    decoded = await site.total("decoder", "hart_batch_size_sum")
    return max(drawn, decoded) if drawn != decoded else drawn


async def _refusal(asking: object) -> bool:
    try:
        await asking  # type: ignore[misc]
    except errors.InvalidRequest as error:
        return "request_id" in error.fields
    return False
