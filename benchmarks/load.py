"""Throughput and latency at 50%, 90%, 120% and 300% of the cluster's capacity.

    python -m benchmarks.load [--seconds 20] [--shares 0.5 3] [--checkpoint FOLDER] [--replicas ar_generator=2]

Capacity is what a closed loop gets through, measured first in the same run (or given: `--capacity`). Then requests
arrive by a Poisson process that does not wait for answers; latency counts from the moment a request was due. Every
request has the same deadline; an answer that came after it is counted as LATE. Prompts are some that the checkpoint
knows and its safety accepts; they come again, so the text encoder's cache serves most of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import hart
from hart import errors

from benchmarks.ending import run_command
from benchmarks.local_cluster import FAILURES, local_cluster
from cluster.plan import MAX_REPLICAS
from common.stages import STAGES

SHARES = (0.5, 0.9, 1.2, 3.0)
CLOSED_LOOP = 16
SETTLE_SECONDS = 2.0
MOST_PROMPTS = 12


@dataclass
class Tally:
    """What came of one run's requests."""

    seconds: list[float] = field(default_factory=list)
    """Latency of each answered one."""
    refused: list[float] = field(default_factory=list)
    """Latency of each refusal by RESOURCE_EXHAUSTED."""
    given_up: list[float] = field(default_factory=list)
    """Latency of each DEADLINE_EXCEEDED."""
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
        elif isinstance(error, errors.DeadlineExceeded):
            tally.given_up.append(time.monotonic() - due)
        return
    seconds = time.monotonic() - due
    tally.codes["OK" if seconds <= deadline else "LATE"] += 1
    tally.seconds.append(seconds)


async def accepted(client: hart.AsyncClient) -> list[str]:
    """Some of the prompts that the checkpoint knows, without those that its safety refuses; each was drawn once."""
    known = list((await client.describe()).models[0].example_prompts)[:MOST_PROMPTS] or ["a red heart"]
    found = []
    for prompt in known:
        try:
            await client.generate(prompt, timeout=60)
        except errors.PromptUnsafe:
            continue
        found.append(prompt)
    print(f"{len(found)} of {len(known)} known prompts are accepted by safety")
    return found


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


async def measure(endpoint: str, seconds: float, deadline: float, capacity: float, shares: Sequence[float]) -> None:
    """Print the table."""
    async with hart.AsyncClient(endpoint) as client:
        prompts = await accepted(client)
        if not capacity:
            await closed_loop(client, prompts, 2.0)
            capacity = await closed_loop(client, prompts, seconds)
            print(f"capacity {capacity:.2f} pictures/s ({CLOSED_LOOP} callers in a closed loop for {seconds:g} s)")
        print("| offered | answered/s | p50 | p90 | p99 | slowest | refused in, median and slowest | codes |")
        print("|---|---|---|---|---|---|---|---|")
        for share in shares:
            await asyncio.sleep(SETTLE_SECONDS)
            tally = await open_loop(client, prompts, share * capacity, seconds, deadline)
            print(f"| {share:.0%} = {share * capacity:.2f}/s | {row(tally)} |", flush=True)


def row(tally: Tally) -> str:
    """A run's figures as the cells of a table."""
    times = [f"{tally.percentile(share):.2f} s" for share in (0.5, 0.9, 0.99, 1.0)]
    quick = tally.refused
    refused = f"{1e3 * statistics.median(quick):.0f} ms, {1e3 * max(quick):.0f} ms" if quick else "–"
    codes = ", ".join(f"{code} {count}" for code, count in sorted(tally.codes.items()))
    if tally.given_up:
        codes += f" (deadline said after {statistics.median(tally.given_up):.1f} s, median)"
    return " | ".join([f"{len(tally.seconds) / tally.wall:.2f}", *times, refused, codes])


def replicas(text: str) -> tuple[str, int]:
    """`ar_generator=2` as a stage and a number."""
    stage, _, number = text.partition("=")
    if stage not in STAGES or not number.isdecimal() or not 1 <= int(number) <= MAX_REPLICAS:
        raise argparse.ArgumentTypeError(f"{text}: not one of {', '.join(STAGES)} with =1 to ={MAX_REPLICAS}")
    return stage, int(number)


def address(text: str) -> str:
    """What the client takes for an endpoint."""
    try:
        hart.Client(text).close()
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def main() -> int:
    """Follow the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="of the capacity (default: all four)")
    parser.add_argument("--capacity", type=float, default=0.0, help="pictures per second (default: measured first)")
    parser.add_argument("--deadline", type=float, default=10.0, help="of each request, in seconds")
    parser.add_argument("--checkpoint", default="", help="default: the bundled one")
    parser.add_argument("--replicas", nargs="*", type=replicas, default=[], metavar="STAGE=N", help="default: one each")
    parser.add_argument("--threads", type=int, default=1, help="of torch in each process; 0: torch's choice")
    parser.add_argument("--endpoint", type=address, help="a running cluster; default: one is started")
    chosen = parser.parse_args()
    ours = local_cluster(chosen.checkpoint, dict(chosen.replicas), torch_threads=str(chosen.threads))
    where: AbstractContextManager[str] = nullcontext(chosen.endpoint) if chosen.endpoint else ours
    with where as endpoint:
        print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; deadline {chosen.deadline:g} s")
        asyncio.run(measure(endpoint, chosen.seconds, chosen.deadline, chosen.capacity, chosen.shares))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, *FAILURES))
