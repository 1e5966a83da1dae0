"""`hart bench`: open-loop load. Requests are sent on a schedule, without waiting for responses."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hart.cli import connection as shared
from hart.cli.connection import EXIT_FAILURE, ConnectionOptions, UsageError, console, exit_code, exit_codes, print_error
from hart.cli.interrupt import run
from hart.cli.numbers import number
from hart.cli.prompts import read

if TYPE_CHECKING:
    from hart.aio import AsyncClient
    from hart.errors import HartError
    from hart.request import Options

_MAX_ARRIVALS = 1_000_000
_PERCENTILES = (50, 90, 95, 99)


@shared.with_connection
def bench(
    where: ConnectionOptions,
    rate: Annotated[float, typer.Option(parser=number(float, 0.001), metavar="X", help="Requests per second.")],
    seconds: Annotated[
        float,
        # Named, because typer 0.27 takes a metavar that is the name in capitals for the option's name.
        typer.Option("--seconds", parser=number(float, 0.001), metavar="SECONDS", help="Duration of the load."),
    ],
    prompt: Annotated[
        str | None, typer.Option(help="The prompt. Default: the cluster's example prompts in turn.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file of prompts, one per line, used in turn; - for standard input.")
    ] = None,
    num_images: Annotated[
        int | None, typer.Option("--num-images", "-n", parser=number(int), metavar="N", help="Images per request.")
    ] = None,
    guidance: Annotated[float | None, typer.Option(parser=number(float), metavar="X", help="As in generate.")] = None,
    more_smooth: Annotated[bool | None, typer.Option(help="As in generate.")] = None,
    top_p: Annotated[float | None, typer.Option(parser=number(float), metavar="X", help="As in generate.")] = None,
    format: Annotated[str | None, typer.Option(help="As in generate.")] = None,
    quality: Annotated[int | None, typer.Option(parser=number(int), metavar="N", help="As in generate.")] = None,
    model: Annotated[str | None, typer.Option(help="As in generate.")] = None,
    arrivals: Annotated[str, typer.Option(help="Distribution of arrivals: poisson or uniform.")] = "poisson",
    seed: Annotated[
        int, typer.Option(parser=number(int), metavar="N", help="Seed of the arrivals and of the images.")
    ] = 0,
    timeout: shared.Timeout = 60,
) -> None:
    """Measure latency and errors at a given rate. Prints JSON.

    Latency counts from the scheduled time of a request, so that it includes any send lag.
    """
    options: Options = {
        "model": model,
        "num_images": num_images,
        "guidance": guidance,
        "more_smooth": more_smooth,
        "top_p": top_p,
        "format": format,
        "quality": quality,
    }
    with exit_codes():
        from hart.request import build

        if prompt is not None and file is not None:
            raise UsageError("give --prompt or --file, not both")
        prompts = [prompt] if prompt is not None else read(file) if file else []
        due = schedule(rate, seconds, arrivals, seed)
        build("", {**options, "seed": seed})  # raises for an option that would fail every request
        build("", {"seed": seed + len(due)})
        tally, interrupted = Tally(), False
        try:
            run(_send(where, prompts, options, due, timeout, seed, tally))
        except KeyboardInterrupt:
            if not tally.wall:  # nothing was sent
                raise
            interrupted = True
        print(json.dumps({"rate": rate, "seconds": seconds, "arrivals": arrivals, **tally.json()}, indent=2))
        console().print(f"{tally.answered} of {len(due)} answered; errors: {dict(tally.errors) or 'none'}")
        if tally.refusal:
            print_error(tally.refusal)
        if interrupted:
            raise KeyboardInterrupt
        if not tally.answered:
            raise typer.Exit(exit_code(tally.refusal) if tally.refusal else EXIT_FAILURE)


def schedule(rate: float, seconds: float, arrivals: str, seed: int) -> list[float]:
    """Arrival times in seconds from the start, ascending, the first at 0. Raises UsageError."""
    if not rate * seconds <= _MAX_ARRIVALS:
        raise UsageError(f"--rate {rate:g} --seconds {seconds:g}: more than the max of {_MAX_ARRIVALS} requests")
    if arrivals not in ("poisson", "uniform"):
        raise UsageError(f"--arrivals {arrivals}: expected poisson or uniform")
    source = random.Random(seed)
    due, now = [], 0.0
    while now < seconds:
        due.append(now)
        now += source.expovariate(rate) if arrivals == "poisson" else 1 / rate
    return due


@dataclass
class Tally:
    """The results of a load test."""

    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    refusal: HartError | None = None
    """The first error caused by the request itself, printed as an example of all such errors."""
    stages: dict[str, list[float]] = field(default_factory=dict)
    images: int = 0
    lag: float = 0.0
    wall: float = 0.0

    @property
    def answered(self) -> int:
        """The number of successful requests."""
        return len(self.latencies)

    def json(self) -> dict[str, Any]:
        """Counts, latency percentiles in seconds, images per second over the whole run, means per stage in seconds."""
        return {
            "sent": self.answered + self.errors.total(),
            "answered": self.answered,
            "errors": dict(self.errors),
            "images": self.images,
            "wall_seconds": self.wall,
            "images_per_second": self.images / self.wall if self.wall else 0.0,
            "latency_seconds": percentiles(self.latencies),
            "stage_mean_seconds": {name: sum(values) / len(values) for name, values in self.stages.items()},
            "max_send_lag_seconds": self.lag,
        }


def percentiles(values: list[float]) -> dict[str, float] | None:
    """Nearest-rank percentiles, mean, min and max; None if there are no values."""
    if not values:
        return None
    ranked = sorted(values)
    ranks = {f"p{p}": ranked[max(0, -(-p * len(ranked) // 100) - 1)] for p in _PERCENTILES}
    return {"mean": sum(ranked) / len(ranked), "min": ranked[0], **ranks, "max": ranked[-1]}


async def _send(
    where: ConnectionOptions,
    prompts: list[str],
    options: Options,
    due: list[float],
    limit: float | None,
    seed: int,
    tally: Tally,
) -> None:
    from hart.aio import AsyncClient

    async with AsyncClient(**where.arguments()) as client:
        about = await client.describe()
        if not prompts:
            prompts = [prompt for model in about.models for prompt in model.example_prompts] or ["a red heart"]
        start = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                for number, moment in enumerate(due):
                    await asyncio.sleep(max(0.0, start + moment - time.monotonic()))
                    tally.lag = max(tally.lag, time.monotonic() - start - moment)
                    ask: Options = {**options, "seed": seed + number}
                    prompt = prompts[number % len(prompts)]
                    group.create_task(_one(client, prompt, ask, limit, start + moment, tally))
        finally:
            tally.wall = time.monotonic() - start


async def _one(
    client: AsyncClient, prompt: str, options: Options, seconds: float | None, due: float, tally: Tally
) -> None:
    from hart.errors import HartError, InvalidRequest, PromptUnsafe

    try:
        result = await client.generate(prompt, timeout=seconds, **options)
    except HartError as error:
        tally.errors[error.code.name] += 1
        if isinstance(error, InvalidRequest | PromptUnsafe):
            tally.refusal = tally.refusal or error
        return
    tally.latencies.append(time.monotonic() - due)
    tally.images += len(result)
    for call in result.report.timings.calls:
        tally.stages.setdefault(f"{call.stage}_queue", []).append(call.queue_seconds)
        tally.stages.setdefault(f"{call.stage}_compute", []).append(call.compute_seconds)
