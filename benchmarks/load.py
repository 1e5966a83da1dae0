"""Throughput and latency at 50%, 90%, 120% and 300% of the cluster's capacity.

    python -m benchmarks.load [--seconds 20] [--shares 0.5 3] [--checkpoint FOLDER] [--replicas ar_generator=2]

Capacity is the throughput of a closed loop, measured first in the same run (or given: `--capacity`). Then requests
arrive by a Poisson process that does not wait for answers; latency counts from the moment a request was due. Every
request has the same deadline; an answer after it counts as LATE. Prompts are some that the checkpoint knows and its
safety model accepts; they repeat, so the text encoder's cache serves most of them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import hart
from hart import errors

from benchmarks.harness.cli import run_command
from benchmarks.harness.load import closed_loop, open_loop, percentile
from benchmarks.harness.local_cluster import FAILURES, local_cluster
from cluster.plan import MAX_REPLICAS
from common.stages import STAGES

SHARES = (0.5, 0.9, 1.2, 3.0)
CLOSED_LOOP = 16
SETTLE_SECONDS = 2.0
MAX_PROMPTS = 12


@dataclass
class Tally:
    """The results of one run's requests."""

    seconds: list[float] = field(default_factory=list)
    """Latency of each answered one."""
    refused: list[float] = field(default_factory=list)
    """Latency of each refusal by RESOURCE_EXHAUSTED."""
    expired: list[float] = field(default_factory=list)
    """Latency of each DEADLINE_EXCEEDED."""
    codes: Counter[str] = field(default_factory=Counter)
    wall: float = 0.0


async def send(client: hart.AsyncClient, prompt: str, seed: int, deadline: float, due: float, tally: Tally) -> None:
    """Request one image and record its result."""
    try:
        await client.generate(prompt, seed=seed, timeout=deadline)
    except errors.HartError as error:
        tally.codes[error.code.name] += 1
        if isinstance(error, errors.Overloaded):
            tally.refused.append(time.monotonic() - due)
        elif isinstance(error, errors.DeadlineExceeded):
            tally.expired.append(time.monotonic() - due)
        return
    seconds = time.monotonic() - due
    tally.codes["OK" if seconds <= deadline else "LATE"] += 1
    tally.seconds.append(seconds)


async def accepted(client: hart.AsyncClient) -> list[str]:
    """Some prompts that the checkpoint knows and its safety model accepts; draws each once."""
    known = list((await client.describe()).models[0].example_prompts)[:MAX_PROMPTS] or ["a red heart"]
    found = []
    for prompt in known:
        try:
            await client.generate(prompt, timeout=60)
        except errors.PromptUnsafe:
            continue
        found.append(prompt)
    print(f"{len(found)} of {len(known)} known prompts are accepted by safety")
    return found


async def measured_capacity(client: hart.AsyncClient, prompts: list[str], seconds: float) -> float:
    """Images per second with as many callers as keep every stage busy."""
    tally, begun, numbers = Tally(), time.monotonic(), itertools.count()

    async def one(due: float) -> None:
        number = next(numbers)
        await send(client, prompts[number % len(prompts)], number, 60, due, tally)

    await closed_loop(CLOSED_LOOP, seconds, one)
    return len(tally.seconds) / (time.monotonic() - begun)


async def offered(client: hart.AsyncClient, prompts: list[str], rate: float, seconds: float, deadline: float) -> Tally:
    """The results of `rate` requests per second for `seconds`."""
    tally, begun, numbers = Tally(), time.monotonic(), itertools.count()

    async def one(due: float) -> None:
        number = next(numbers)
        await send(client, prompts[number % len(prompts)], number, deadline, due, tally)

    await open_loop(rate, seconds, one, source=random.Random(1))
    tally.wall = time.monotonic() - begun
    return tally


async def measure(endpoint: str, seconds: float, deadline: float, capacity: float, shares: Sequence[float]) -> None:
    """Print the table."""
    async with hart.AsyncClient(endpoint) as client:
        prompts = await accepted(client)
        if not capacity:
            await measured_capacity(client, prompts, 2.0)
            capacity = await measured_capacity(client, prompts, seconds)
            print(f"capacity {capacity:.2f} images/s ({CLOSED_LOOP} callers in a closed loop for {seconds:g} s)")
        print("| offered | answered/s | p50 | p90 | p99 | max | refused in, median and max | codes |")
        print("|---|---|---|---|---|---|---|---|")
        for share in shares:
            await asyncio.sleep(SETTLE_SECONDS)
            tally = await offered(client, prompts, share * capacity, seconds, deadline)
            print(f"| {share:.0%} = {share * capacity:.2f}/s | {row(tally)} |", flush=True)


def row(tally: Tally) -> str:
    """The figures of a run as cells of a table."""
    times = [f"{percentile(tally.seconds, share):.2f} s" for share in (0.5, 0.9, 0.99, 1.0)]
    fast = tally.refused
    refused = f"{1e3 * statistics.median(fast):.0f} ms, {1e3 * max(fast):.0f} ms" if fast else "–"
    codes = ", ".join(f"{code} {count}" for code, count in sorted(tally.codes.items()))
    if tally.expired:
        codes += f" (deadline exceeded after {statistics.median(tally.expired):.1f} s, median)"
    return " | ".join([f"{len(tally.seconds) / tally.wall:.2f}", *times, refused, codes])


def replicas(text: str) -> tuple[str, int]:
    """Parse `ar_generator=2` into a stage and a number."""
    stage, _, number = text.partition("=")
    if stage not in STAGES or not number.isdecimal() or not 1 <= int(number) <= MAX_REPLICAS:
        raise argparse.ArgumentTypeError(f"{text}: not one of {', '.join(STAGES)} with =1 to ={MAX_REPLICAS}")
    return stage, int(number)


def address(text: str) -> str:
    """An endpoint that the client accepts."""
    try:
        hart.Client(text).close()
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="of the capacity (default: all four)")
    parser.add_argument("--capacity", type=float, default=0.0, help="images per second (default: measured first)")
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
