"""Load: requests at random moments or from a fixed number of callers. Knows no request."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

R = TypeVar("R")
Send = Callable[[float], Awaitable[R]]
"""Sends one request. Its argument is the moment at which the request was due, in monotonic seconds."""


async def open_loop(
    rate: float,
    seconds: float,
    send: Send[R],
    *,
    until: asyncio.Future[Any] | None = None,
    source: random.Random | None = None,
) -> list[R]:
    """Poisson arrivals, `rate` per second, which do not wait for earlier requests to end.

    Arrivals last `seconds`, and longer if `until` is not done by then. `source`: the random numbers (default: the
    module's, which a caller may seed). Returns the results in the order of arrival, after all have ended.
    """
    draw = (source or random).expovariate
    tasks: list[asyncio.Future[R]] = []
    due = time.monotonic()
    end = due + seconds
    while (due := due + draw(rate)) < end or (until is not None and not until.done()):
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.ensure_future(send(due)))
    return list(await asyncio.gather(*tasks))


async def closed_loop(callers: int, seconds: float, send: Send[R]) -> list[R]:
    """`callers` concurrent callers for `seconds`; each sends its next request when its last one has ended."""
    end = time.monotonic() + seconds

    async def caller() -> list[R]:
        results = []
        while (now := time.monotonic()) < end:
            results.append(await send(now))
        return results

    per_caller = await asyncio.gather(*(caller() for _ in range(callers)))
    return [result for results in per_caller for result in results]


def percentile(values: Iterable[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` of all values do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
