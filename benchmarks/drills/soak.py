"""Long mixed load with cancels and bad requests: nothing grows, nothing is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from hart import errors

from benchmarks.drills import metrics
from benchmarks.drills.cases import RequestCase
from benchmarks.drills.harness import Harness, opened
from benchmarks.drills.load import RequestResult, capacity, draw, judge
from benchmarks.drills.report import Report, slope
from benchmarks.harness.checkpoint import UNSAFE_PROMPT
from benchmarks.harness.load import open_loop

SHARE = 0.25
EVERY = 2.0
WARM = 0.3  # of the time: allocations of the first requests are no leak
GROWTH = 0.05
"""The share of its memory by which a process may grow from there to the end."""


async def soak(harness: Harness, seconds: float, report: Report) -> None:
    """A mixed load with one request in ten cancelled and one in ten invalid."""
    async with opened(harness.cluster, harness.references, idempotency_cache_bytes=str(2**20)) as small:
        rate = max(0.2, SHARE * await capacity(small.client, small.cases, small.references, 4, min(5.0, seconds / 6)))
        report.figure("requests/s sent", rate)
        watch = _Watch(small)
        watching = asyncio.create_task(watch.run())
        outcomes = await open_loop(rate, seconds, lambda due: _one(small))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        kept = [o for o in outcomes if o.code not in ("LEFT", "REFUSED")]
        report.figure("cancelled / refused as expected", Counter(o.code for o in outcomes if o not in kept))
        judge(report, kept, small.references, share=1.0)
        watch.judge(report, seconds)


async def _one(harness: Harness) -> RequestResult:
    chance, case = random.random(), random.choice(harness.cases)
    if chance < 0.1:
        return await _leaves(harness, case)
    if chance < 0.2:
        return await _bad(harness, case)
    return await draw(harness.client, case, harness.references)


async def _leaves(harness: Harness, case: RequestCase) -> RequestResult:
    began = time.monotonic()
    try:
        return await asyncio.wait_for(draw(harness.client, case, harness.references), random.uniform(0, 1))
    except TimeoutError:
        return RequestResult(case, began, time.monotonic() - began, "LEFT")


async def _bad(harness: Harness, case: RequestCase) -> RequestResult:
    began = time.monotonic()
    bad = random.choice(
        (
            (UNSAFE_PROMPT, {}),
            ("", {}),
            ("x" * 2001, {}),
            (case.prompt, {"guidance": 99.0}),
            (case.prompt, {"num_images": 9}),
        )
    )
    fault = "a bad request got an image"
    try:
        await harness.client.generate(bad[0], timeout=60, **bad[1])
    except (errors.InvalidRequest, errors.PromptUnsafe):
        fault = ""
    except errors.HartError as error:
        fault = f"a bad request got {error.code.name}: {error.message}"
    code = "UNKNOWN" if fault else "REFUSED"
    return RequestResult(case, began, time.monotonic() - began, code, fault=fault)


@dataclass
class _Watch:
    harness: Harness
    times: list[float] = field(default_factory=list)
    seen: list[list[metrics.Resources]] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            self.times.append(time.monotonic())
            self.seen.append([metrics.resources(process) for process in self.harness.processes])
            await asyncio.sleep(EVERY)

    def judge(self, report: Report, seconds: float) -> None:
        """Slopes after the warm-up, by process."""
        first = int(WARM * len(self.times))
        hours = [t / 3600 for t in self.times[first:]]
        broken = []
        for number, process in enumerate(self.harness.processes):
            held = [row[number] for row in self.seen[first:]]
            memory = [r.memory / 2**20 for r in held]
            growth = slope(hours, memory) * (hours[-1] - hours[0]) if hours else 0.0
            files, threads, channels = (
                _change([getattr(r, name) for r in held]) for name in ("files", "threads", "channels")
            )
            report.figure(
                f"{process.name}:{process.port}",
                f"{memory[-1]:.0f} MiB, {slope(hours, memory):+.1f} MiB/h ({growth:+.2f} MiB in this run); "
                f"files {files:+.1f}, threads {threads:+.1f}, channels {channels:+.1f}",
            )
            if growth > GROWTH * memory[0] or files > 4 or threads > 2 or channels > 4:
                broken.append(process.name)
        report.invariant(
            "memory, files, threads and channels of every process stay flat", not broken, ", ".join(broken)
        )


def _change(values: list[int]) -> float:
    """Mean of the last quarter less mean of the first."""
    part = max(1, len(values) // 4)
    return sum(values[-part:]) / part - sum(values[:part]) / part
