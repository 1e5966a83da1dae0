"""Requests sent to the cluster, and the invariants of each. Knows no fault."""

# ruff: noqa: ASYNC109 (a timeout here is the deadline that travels with the call)

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hart import errors
from hart.aio import AsyncClient
from hart.results import Accepted, Finished, Image, Progress

from benchmarks.drills.cases import References, RequestCase
from benchmarks.drills.report import Report
from benchmarks.harness.load import Send, closed_loop, percentile

HANG_SECONDS = 3.0
"""A request that has not ended this long after its deadline hangs; the slack is for a busy machine."""
RESEND_SECONDS = 60.0
"""How long a request that a full queue refused is sent again."""


@dataclass(frozen=True)
class RequestResult:
    """How a request ended."""

    case: RequestCase
    began: float
    """Monotonic seconds."""
    seconds: float
    code: str
    """The gRPC status code's name."""
    error: errors.HartError | None = None
    fault: str = ""
    """Which invariant the request broke; "" if none."""
    refused: int = 0
    """How often it was refused by a full queue before."""

    @property
    def ok(self) -> bool:
        """It got its images."""
        return self.code == "OK" and not self.fault


async def draw(client: AsyncClient, case: RequestCase, references: References, timeout: float = 60.0) -> RequestResult:
    """Send a case and check what comes back."""
    began = time.monotonic()
    code, failure, fault = "OK", None, ""
    try:
        async with asyncio.timeout(timeout + HANG_SECONDS):
            if case.streams:
                fault = await _stream(client, case, references, timeout)
            else:
                fault = references.fault(case, await client.generate(case.prompt, timeout=timeout, **case.options()))
    except errors.HartError as error:
        code, failure, fault = error.code.name, error, unclear(error)
    except TimeoutError:
        code, fault = "HUNG", f"no end {HANG_SECONDS} s past its deadline"
    return RequestResult(case, began, time.monotonic() - began, code, failure, fault)


def any_of(
    client: AsyncClient, cases: Sequence[RequestCase], references: References, timeout: float = 60.0
) -> Send[RequestResult]:
    """Sends a random one of the cases each time it is called."""
    return lambda due: draw(client, random.choice(cases), references, timeout)


def resent_when_full(send: Send[RequestResult]) -> Send[RequestResult]:
    """`send`, repeated after the server's `retry_after` while queues are full: queue limits are another drill's."""

    async def sent(due: float) -> RequestResult:
        end = time.monotonic() + RESEND_SECONDS
        for refused in itertools.count():
            outcome = replace(await send(due), refused=refused)
            if not isinstance(outcome.error, errors.Overloaded) or outcome.fault or time.monotonic() > end:
                break
            await asyncio.sleep(outcome.error.retry_after or 0.1)
        return outcome

    return sent


async def _stream(client: AsyncClient, case: RequestCase, references: References, timeout: float) -> str:
    images: list[Image] = []
    last_scale: dict[int, int] = {}
    ends = 0
    async for event in client.stream(case.prompt, timeout=timeout, **case.options()):
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
    return references.fault(case, images) or ("" if ends == 1 else f"{ends} ends")


def unclear(error: errors.HartError) -> str:
    """What is missing in the status that ended a valid request; "" if nothing."""
    known = isinstance(error, errors.Overloaded | errors.Unavailable | errors.DeadlineExceeded)
    said = f"{error.code.name}: {error.message}"
    if not known:
        return said
    if isinstance(error, errors.Overloaded) and not (error.stage and error.setting and error.retry_after is not None):
        return f"{said} (stage {error.stage!r}, setting {error.setting!r}, retry after {error.retry_after})"
    return ""


async def capacity(
    client: AsyncClient, cases: Sequence[RequestCase], references: References, workers: int, seconds: float
) -> float:
    """Images per second with `workers` concurrent requests."""
    began = time.monotonic()
    outcomes = await closed_loop(workers, seconds, any_of(client, cases, references, 120))
    return sum(o.case.num_images for o in outcomes if o.ok) / (time.monotonic() - began)


def judge(report: Report, outcomes: Sequence[RequestResult], references: References, *, share: float) -> None:
    """The invariants of every load: a right image or a clear status, nothing hangs, at least `share` succeed."""
    done = [o.seconds for o in outcomes if o.ok]
    report.figure("requests", len(outcomes))
    report.figure("the load lasted, seconds", _lasted(outcomes))
    report.figure("ended with", Counter(o.code for o in outcomes))
    report.figure("refused by full queues and sent again", sum(o.refused > 0 for o in outcomes))
    report.figure("seconds of the successful, p50 / p99 / max", " / ".join(
        f"{x:.3f}" for x in (percentile(done, 0.5), percentile(done, 0.99), max(done, default=float("nan")))
    ))  # fmt: skip
    report.figure("images whose file differs from the reference", f"{references.inexact} (within tolerance)")
    for failed in [o for o in outcomes if not o.ok][:5]:
        report.figure("  such as", f"{failed.code} after {failed.seconds:.2f} s: {failed.fault or failed.error}")
    wrong = Counter(o.fault for o in outcomes if o.fault)
    report.invariant("each request ends with its own image or a clear status, and none hangs", not wrong, wrong)
    good = len(done) / max(1, len(outcomes))
    report.invariant(f"at least {share:.0%} succeed", bool(outcomes) and good >= share, f"{good:.2%}")


def _lasted(outcomes: Sequence[RequestResult]) -> float:
    return max((o.began + o.seconds for o in outcomes), default=0.0) - min((o.began for o in outcomes), default=0.0)
