"""What the cluster adds to the time of an image: five processes over one, by turns in one run.

    python -m benchmarks.overhead [--images 30] [--checkpoint FOLDER] [--threads N] [--http]

Both sides begin with a prompt and end with a PNG file in memory with its recipe. The safety check is included, previews
are off, no prompt repeats (the text encoder's cache is off), and `Compute` sets threads and allocator on both sides.
Prompts that the safety model refuses are left out beforehand. Prints medians, their ratio and difference, and the time
of each part of the cluster. Exit code 1 if the cluster's median is more than 1.10 times as long and more than 25 ms
longer.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import http_overhead
from benchmarks.harness.cli import run_command
from benchmarks.harness.local_cluster import FAILURES, local_cluster
from training.core.options import count

MAX_RATIO, MAX_SECONDS = 1.10, 0.025
WARM_UP = 3


def prompts(known: list[str]) -> Iterator[str]:
    """An endless sequence of distinct prompts."""
    return (f"{known[number % len(known)]} {number}" for number in itertools.count())


def accepted(candidates: Iterator[str], count: int, safety: Any) -> tuple[list[str], int]:
    """The first `count` prompts that the classifier accepts, and how many it refused before them."""
    found: list[str] = []
    refused = 0
    while len(found) < count:
        candidate = next(candidates)
        if safety.check([candidate])[0].unsafe:
            refused += 1
            if refused > 10 * (count + len(found)):
                raise SystemExit(f"the safety model refuses {refused} of {refused + len(found)} prompts")
        else:
            found.append(candidate)
    return found, refused


def timed(draw: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    begun = time.perf_counter()
    result = draw()
    return time.perf_counter() - begun, result


def measure(endpoint: str, pipeline: Any, drawn: list[str]) -> tuple[list[float], list[float], list[Any]]:
    """Seconds per image in one process and through the cluster, by turns, and the cluster's reports."""
    import hart

    alone: list[float] = []
    through: list[float] = []
    reports: list[Any] = []
    with hart.Client(endpoint) as client:
        for number, prompt in enumerate(drawn):
            ways: list[tuple[list[float], Callable[[], Any]]] = [
                (alone, lambda p=prompt, n=number: pipeline.draw(p, seed=n).to_bytes("PNG")),  # type: ignore[misc]
                (through, lambda p=prompt, n=number: client.generate(p, seed=n)),  # type: ignore[misc]
            ]
            for seconds, draw in ways if number % 2 else reversed(ways):
                taken, result = timed(draw)
                seconds.append(taken)
                if seconds is through:
                    reports.append(result.report)
    return alone[WARM_UP:], through[WARM_UP:], reports[WARM_UP:]


def breakdown(reports: list[Any]) -> dict[str, float]:
    """Median milliseconds of each stage on the critical path, and of the gateway."""
    parts: dict[str, list[float]] = {}
    for report in reports:
        for call in report.timings.calls:
            if call.critical:
                parts.setdefault(f"{call.stage}, compute", []).append(call.compute_seconds)
                parts.setdefault(f"{call.stage}, queue", []).append(call.queue_seconds)
        parts.setdefault("gateway and network", []).append(report.timings.gateway_seconds)
    return {name: 1e3 * statistics.median(values) for name, values in parts.items()}


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=count, default=30)
    parser.add_argument("--checkpoint", default="", help="default: the bundled one")
    parser.add_argument("--threads", type=int, default=0, help="of torch, per process (default: torch's choice)")
    parser.add_argument("--http", action="store_true", help="compare HTTP with gRPC instead (benchmarks.http_overhead)")
    chosen = parser.parse_args()
    if chosen.http:
        return http_overhead.measure(chosen.images, chosen.checkpoint, chosen.threads)

    import torch

    from model.checkpoint import bundled
    from model.device import Compute
    from model.pipeline import Pipeline

    Compute.of("cpu", "float32", chosen.threads).own_this_thread()
    pipeline = Pipeline.load(chosen.checkpoint or bundled())
    known = pipeline.checkpoint.known_prompts() or ["a red heart"]
    drawn, refused = accepted(prompts(known), WARM_UP + chosen.images, pipeline.safety)
    with local_cluster(chosen.checkpoint, cache_bytes="0", torch_threads=str(chosen.threads)) as endpoint:
        alone, through, reports = measure(endpoint, pipeline, drawn)
    one, many = statistics.median(alone), statistics.median(through)
    busy = f"torch threads {torch.get_num_threads()}, load {os.getloadavg()[0]:.1f}"
    print(f"{chosen.images} images each way, by turns; {busy}; prompts refused by safety and left out: {refused}")
    for name, values in (("one process", alone), ("cluster", through)):
        ranked = sorted(values)
        print(f"  {name:<14} median {1e3 * statistics.median(values):8.1f} ms   fastest {1e3 * ranked[0]:8.1f} ms")
    print(f"  ratio {many / one:.3f}, difference {1e3 * (many - one):+.1f} ms")
    for name, milliseconds in breakdown(reports).items():
        print(f"    {name:<24}{milliseconds:8.1f} ms")
    return judged(one, many)


def judged(one: float, many: float) -> int:
    """The exit code for these medians; prints a line if the cluster takes too long."""
    if many <= one * MAX_RATIO or many - one <= MAX_SECONDS:
        return 0
    print(f"  the cluster takes too long: over {MAX_RATIO} times and {1e3 * MAX_SECONDS:.0f} ms more")
    return 1


if __name__ == "__main__":
    sys.exit(run_command(main, *FAILURES))
