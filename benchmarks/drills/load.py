"""Requests sent to the cluster, each judged by its end. Knows no failure and no law beyond a single request's."""

# ruff: noqa: ASYNC109 (a timeout here is the deadline that travels with the call)

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hart import errors
from hart.aio import AsyncClient
from hart.results import Accepted, Finished, Image, Progress

from benchmarks.drills.asks import Ask, Truth
from benchmarks.drills.report import Report, percentile

HANG_SECONDS = 3.0
"""Past its deadline a request that has not ended hangs; the slack is for a busy machine."""
PATIENCE = 60.0
"""Seconds after which a patient caller gives up."""


@dataclass(frozen=True)
class RequestResult:
    """How a request ended."""

    ask: Ask
    began: float
    """Monotonic seconds."""
    seconds: float
    code: str
    """The gRPC status code's name."""
    error: errors.HartError | None = None
    fault: str = ""
    """How the request itself broke a law; "" where it did not."""
    refused: int = 0
    """How often it was sent before and refused for want of room."""

    @property
    def ok(self) -> bool:
        """It has its pictures."""
        return self.code == "OK" and not self.fault


async def draw(client: AsyncClient, ask: Ask, truth: Truth, timeout: float = 60.0) -> RequestResult:
    """Send an ask, and judge what comes."""
    began = time.monotonic()
    code, failure, fault = "OK", None, ""
    try:
        async with asyncio.timeout(timeout + HANG_SECONDS):
            if ask.streams:
                fault = await _stream(client, ask, truth, timeout)
            else:
                fault = truth.fault(ask, await client.generate(ask.prompt, timeout=timeout, **ask.options()))
    except errors.HartError as error:
        code, failure, fault = error.code.name, error, unclear(error)
    except TimeoutError:
        code, fault = "HUNG", f"no end {HANG_SECONDS} s past its deadline"
    return RequestResult(ask, began, time.monotonic() - began, code, failure, fault)


def any_of(
    client: AsyncClient, asks: Sequence[Ask], truth: Truth, timeout: float = 60.0
) -> Callable[[], Awaitable[RequestResult]]:
    """Sends one of the asks, another each time it is called."""
    return lambda: draw(client, random.choice(asks), truth, timeout)


def patient(one: Callable[[], Awaitable[RequestResult]]) -> Callable[[], Awaitable[RequestResult]]:
    """`one`, sent again for a while where there was no room for it, as it was told: room is no matter of the drill."""

    async def sent() -> RequestResult:
        end = time.monotonic() + PATIENCE
        for refused in itertools.count():
            outcome = replace(await one(), refused=refused)
            if not isinstance(outcome.error, errors.Overloaded) or outcome.fault or time.monotonic() > end:
                break
            await asyncio.sleep(outcome.error.retry_after or 0.1)
        return outcome

    return sent


async def _stream(client: AsyncClient, ask: Ask, truth: Truth, timeout: float) -> str:
    images: list[Image] = []
    last_scale: dict[int, int] = {}
    ends = 0
    async for event in client.stream(ask.prompt, timeout=timeout, **ask.options()):
        if isinstance(event, Progress):
            if event.scale != last_scale.get(event.image_index, -1) + 1:
                return f"progress from scale {last_scale.get(event.image_index, -1)} to {event.scale}"
            last_scale[event.image_index] = event.scale
        elif isinstance(event, Image):
            images.append(event)
        elif isinstance(event, Accepted):
            if last_scale or images:
                return "accepted twice"
        elif isinstance(event, Finished):
            ends += 1
    return truth.fault(ask, images) or ("" if ends == 1 else f"{ends} ends")


def unclear(error: errors.HartError) -> str:
    """What a caller misses in a status that ends a well-formed request; "" where nothing."""
    known = isinstance(error, errors.Overloaded | errors.Unavailable | errors.DeadlineExceeded)
    said = f"{error.code.name}: {error.message}"
    if not known:
        return said
    if isinstance(error, errors.Overloaded) and not (error.stage and error.setting and error.retry_after is not None):
        return f"{said} (stage {error.stage!r}, setting {error.setting!r}, retry after {error.retry_after})"
    return ""


async def open_loop(
    rate: float,
    seconds: float,
    one: Callable[[], Awaitable[RequestResult]],
    *,
    beside: asyncio.Future[Any] | None = None,
) -> list[RequestResult]:
    """Begin `one` at random moments, `rate` a second, whatever has ended, for so many seconds and at least as long as
    `beside` runs; the outcomes when all have ended."""
    tasks: list[asyncio.Future[RequestResult]] = []
    end = time.monotonic() + seconds
    due = time.monotonic()
    while (due := due + random.expovariate(rate)) < end or (beside is not None and not beside.done()):
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.ensure_future(one()))
    return list(await asyncio.gather(*tasks))


async def closed_loop(workers: int, seconds: float, one: Callable[[], Awaitable[RequestResult]]) -> list[RequestResult]:
    """`workers` that each send the next when the last has ended."""
    end = time.monotonic() + seconds

    async def work() -> list[RequestResult]:
        found = []
        while time.monotonic() < end:
            found.append(await one())
        return found

    return list(itertools.chain.from_iterable(await asyncio.gather(*(work() for _ in range(workers)))))


async def capacity(client: AsyncClient, asks: Sequence[Ask], truth: Truth, workers: int, seconds: float) -> float:
    """Pictures a second with `workers` requests always in work."""
    began = time.monotonic()
    outcomes = await closed_loop(workers, seconds, any_of(client, asks, truth, 120))
    return sum(o.ask.num_images for o in outcomes if o.ok) / (time.monotonic() - began)


def judge(report: Report, outcomes: Sequence[RequestResult], truth: Truth, *, share: float) -> None:
    """The laws of every load: a right picture or a clear status, nothing hangs, at least `share` succeed."""
    done = [o.seconds for o in outcomes if o.ok]
    report.figure("requests", len(outcomes))
    report.figure("the load lasted, seconds", _lasted(outcomes))
    report.figure("ended with", Counter(o.code for o in outcomes))
    report.figure("refused for want of room and sent again", sum(o.refused > 0 for o in outcomes))
    report.figure("seconds of the successful, p50 / p99 / most", " / ".join(
        f"{x:.3f}" for x in (percentile(done, 0.5), percentile(done, 0.99), max(done, default=float("nan")))
    ))  # fmt: skip
    report.figure("pictures whose file differs from peace's", f"{truth.inexact} (within tolerance)")
    for failed in [o for o in outcomes if not o.ok][:5]:
        report.figure("  such as", f"{failed.code} after {failed.seconds:.2f} s: {failed.fault or failed.error}")
    wrong = Counter(o.fault for o in outcomes if o.fault)
    report.law("each request ends with its own picture or a clear status, and none hangs", not wrong, wrong)
    good = len(done) / max(1, len(outcomes))
    report.law(f"at least {share:.0%} succeed", bool(outcomes) and good >= share, f"{good:.2%}")


def _lasted(outcomes: Sequence[RequestResult]) -> float:
    return max((o.began + o.seconds for o in outcomes), default=0.0) - min((o.began for o in outcomes), default=0.0)
