"""A workload sent to a real cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import hart
from hart.aio import AsyncClient

from planner.simulation.job import Failure
from planner.simulation.request import Outcome
from planner.workload import Arrival

TICK_SECONDS = 0.01


async def _delays(found: list[float]) -> None:
    """Add, for ever, the delay of each wake-up after TICK_SECONDS: what the machine's other work costs this process."""
    while True:
        begun = time.monotonic()
        await asyncio.sleep(TICK_SECONDS)
        found.append(time.monotonic() - begun - TICK_SECONDS)


async def send(endpoint: str, arrivals: Sequence[Arrival], delays: list[float]) -> list[Outcome]:
    """Send each request at its moment. Seconds count from that moment. Adds this process's wake-up delays to
    `delays`."""
    witness = asyncio.create_task(_delays(delays))
    try:
        return await _send(endpoint, arrivals)
    finally:
        witness.cancel()


async def _send(endpoint: str, arrivals: Sequence[Arrival]) -> list[Outcome]:
    async with AsyncClient(endpoint) as client:
        await client.describe()
        begun = time.monotonic() + 0.5
        tasks = []
        for number, arrival in enumerate(arrivals):
            await asyncio.sleep(max(0.0, begun + arrival.at - time.monotonic()))
            tasks.append(asyncio.create_task(_outcome(client, arrival, begun + arrival.at, number)))
        return list(await asyncio.gather(*tasks))


async def _outcome(client: AsyncClient, arrival: Arrival, due: float, number: int) -> Outcome:
    prompt, failure = f"a red heart, number {number} of {time.time_ns()}", None
    try:
        if arrival.preview_every:
            stream = client.stream(
                prompt, timeout=arrival.deadline, num_images=arrival.images, preview_every=arrival.preview_every
            )
            async for _ in stream:
                pass
        else:
            await client.generate(prompt, timeout=arrival.deadline, num_images=arrival.images)
    except hart.HartError as error:
        failure = Failure(getattr(error, "stage", "") or "gateway", error.code.name)
    return Outcome(arrival.at, time.monotonic() - due, arrival.images, failure)
