"""Throughput and latency at 50%, 90%, 120% and 300% of the cluster's capacity.

    python -m benchmarks.load [--seconds 20] [--checkpoint FOLDER] [--replicas ar_generator=2] [--threads N]

Capacity is what a closed loop gets through, measured first in the same run. Then requests arrive by a Poisson process
that does not wait for answers; latency counts from the moment a request was due. Every request has the same deadline.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import hart
from hart import errors

from benchmarks.local_cluster import local_cluster

SHARES = (0.5, 0.9, 1.2, 3.0)
CLOSED_LOOP = 16
SETTLE_SECONDS = 2.0


@dataclass
class Tally:
    """What came of one run's requests."""

    seconds: list[float] = field(default_factory=list)
    """Latency of each answered one."""
    refused: list[float] = field(default_factory=list)
    """Latency of each refusal by RESOURCE_EXHAUSTED."""
    codes: Counter[str] = field(default_factory=Counter)
    wall: float = 0.0

    def percentile(self, share: float) -> float:
        """Nearest-rank, in seconds; NaN of nothing."""
        ranked = sorted(self.seconds)
        return ranked[max(0, -int(-share * len(ranked) // 1) - 1)] if ranked else float("nan")


async def ask(client: hart.AsyncClient, prompt: str, seed: int, deadline: float, due: float, tally: Tally) -> None:
    """One picture."""
    try:
        await client.generate(prompt, seed=seed, timeout=deadline)
    except errors.HartError as error:
        tally.codes[error.code.name] += 1
        if isinstance(error, errors.Overloaded):
            tally.refused.append(time.monotonic() - due)
        return
    tally.codes["OK"] += 1
    tally.seconds.append(time.monotonic() - due)


async def closed_loop(client: hart.AsyncClient, prompts: list[str], seconds: float) -> float:
    """Pictures per second with as many callers as keep every stage busy."""
    tally, begun = Tally(), time.monotonic()

    async def caller(number: int) -> None:
        while time.monotonic() - begun < seconds:
            await ask(client, prompts[number % len(prompts)], number, 60, time.monotonic(), tally)
            number += CLOSED_LOOP

    await asyncio.gather(*(caller(number) for number in range(CLOSED_LOOP)))
    return len(tally.seconds) / (time.monotonic() - begun)


async def open_loop(
    client: hart.AsyncClient, prompts: list[str], rate: float, seconds: float, deadline: float
) -> Tally:
    """Requests at `rate` per second for `seconds`."""
    import random

    tally, source, begun = Tally(), random.Random(1), time.monotonic()
    due, number = begun, 0
    async with asyncio.TaskGroup() as group:
        while due - begun < seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(ask(client, prompts[number % len(prompts)], number, deadline, due, tally))
            due, number = due + source.expovariate(rate), number + 1
    tally.wall = time.monotonic() - begun
    return tally


async def measure(endpoint: str, seconds: float, deadline: float) -> None:
    """Print the table."""
    async with hart.AsyncClient(endpoint) as client:
        prompts = list((await client.describe()).models[0].example_prompts) or ["a red heart"]
        await closed_loop(client, prompts, 2.0)
        capacity = await closed_loop(client, prompts, seconds)
        print(f"capacity {capacity:.2f} pictures/s ({CLOSED_LOOP} callers in a closed loop for {seconds:g} s)")
        print(f"{'offered':>18} {'answered/s':>11} {'p50':>8} {'p90':>8} {'p99':>8} {'refused in':>11}   codes")
        for share in SHARES:
            await asyncio.sleep(SETTLE_SECONDS)
            tally = await open_loop(client, prompts, share * capacity, seconds, deadline)
            shown = " ".join(f"{tally.percentile(p):7.3f}s" for p in (0.5, 0.9, 0.99))
            refused = f"{statistics.median(tally.refused):10.3f}s" if tally.refused else " " * 10 + "-"
            print(
                f"{share:6.0%} = {share * capacity:6.2f}/s {len(tally.seconds) / tally.wall:11.2f} {shown} {refused}   "
                + ", ".join(f"{code} {count}" for code, count in sorted(tally.codes.items())),
                flush=True,
            )


def replica_counts(texts: list[str]) -> dict[str, int]:
    """`["ar_generator=2"]` as numbers."""
    return {stage: int(count) for stage, _, count in (text.partition("=") for text in texts)}


def main() -> int:
    """Follow the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--deadline", type=float, default=10.0, help="of each request, in seconds")
    parser.add_argument("--checkpoint", default="", help="default: the bundled one")
    parser.add_argument("--replicas", nargs="*", default=[], metavar="STAGE=N")
    parser.add_argument("--threads", type=int, default=1, help="of torch in each process; 0: torch's choice")
    parser.add_argument("--endpoint", default="", help="a running cluster; default: one is started")
    chosen = parser.parse_args()
    counts = replica_counts(chosen.replicas)
    ours = local_cluster(chosen.checkpoint, counts, torch_threads=str(chosen.threads))
    where: AbstractContextManager[str] = nullcontext(chosen.endpoint) if chosen.endpoint else ours
    with where as endpoint:
        print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; deadline {chosen.deadline:g} s")
        asyncio.run(measure(endpoint, chosen.seconds, chosen.deadline))
    return 0


if __name__ == "__main__":
    sys.exit(main())
