"""Images drawn by two torch threads, alone and beside two busy programs, by turns in one run.

    python -m benchmarks.threads [--rounds 10] [--threads 2] [--busy 2]

Prints medians with the min beside them, and their ratio. Exit code 1 if an image takes more than three times as long
beside the busy programs. `GOMP_SPINCOUNT=300000 python -m benchmarks.threads` shows another spin.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from model.checkpoint import bundled
from model.device import Compute
from model.pipeline import Pipeline
from training.core.options import count

MAX_RATIO = 3.0
PROMPT = "a red heart"


@contextmanager
def busy_programs(number: int) -> Iterator[Callable[[bool], None]]:
    """Programs that each keep a CPU busy, stopped at first. Yields a function that runs or stops them."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]

    def run(running: bool) -> None:
        for program in programs:
            program.send_signal(signal.SIGCONT if running else signal.SIGSTOP)

    try:
        run(False)
        yield run
    finally:
        for program in programs:
            program.kill()
            program.wait()


def measure(rounds: int, threads: int, busy: int) -> tuple[list[float], list[float]]:
    """Seconds per image, alone and beside busy programs."""
    Compute.of("cpu", "float32", threads).own_this_thread()
    pipeline = Pipeline.load(bundled())
    pipeline.draw(PROMPT, 0)
    found: tuple[list[float], list[float]] = ([], [])
    with busy_programs(busy) as run:
        for seed in range(rounds):
            for running, times in enumerate(found):
                run(bool(running))
                begun = time.perf_counter()
                pipeline.draw(PROMPT, seed)
                times.append(time.perf_counter() - begun)
    return found


def main() -> int:
    """Run the command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=count, default=10, help="images of each kind (default: %(default)s)")
    parser.add_argument("--threads", type=count, default=2, help="torch threads (default: %(default)s)")
    parser.add_argument("--busy", type=count, default=2, help="busy programs (default: %(default)s)")
    chosen = parser.parse_args()
    alone, beside = measure(chosen.rounds, chosen.threads, chosen.busy)
    ratio = statistics.median(beside) / statistics.median(alone)
    print(f"GOMP_SPINCOUNT={os.environ.get('GOMP_SPINCOUNT', 'default')}, {chosen.threads} threads")
    for name, times in (("alone", alone), (f"beside {chosen.busy} busy programs", beside)):
        print(f"{name}: median {statistics.median(times) * 1e3:.0f} ms, min {min(times) * 1e3:.0f}")
    print(f"ratio {ratio:.2f} (at most {MAX_RATIO:g})")
    return int(ratio > MAX_RATIO)


if __name__ == "__main__":
    sys.exit(main())
