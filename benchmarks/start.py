"""From `make up` to ready: seconds, CPU seconds and memory of the local cluster, by turns with another checkout.

    python -m benchmarks.start [--against FOLDER] [--rounds 3]
    git archive COMMIT | tar -x -C FOLDER; cd FOLDER; PYTHONPATH=FOLDER:FOLDER/client python client/build_stubs.py

Memory is the proportional set size of all processes once the cluster is ready. Prints medians with the min beside them,
and the ratios. Exit code 1 if this checkout takes more than half of the other's time or 0.6 of its memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.harness.ports import free_cluster_port
from cluster.plan import ROOT
from training.core.options import count

MAX_TIME, MAX_MEMORY = 0.5, 0.6


@dataclass(frozen=True)
class Start:
    """One start of a cluster."""

    seconds: float
    cpu_seconds: float
    mebibytes: float
    """Proportional set size of all processes."""


def start(checkout: Path) -> Start:
    """Start a checkout's cluster, measure it and stop it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HART_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(checkout), str(checkout / "client")])
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cluster", f"--port={free_cluster_port()}", f"--folder={folder}"]

        def follow(word: str) -> None:
            subprocess.run([*command, word], cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)

        begun = time.perf_counter()
        try:
            follow("up")
            seconds = time.perf_counter() - begun
            return _measured(seconds, Path(folder))
        finally:
            follow("down")


def _measured(seconds: float, folder: Path) -> Start:
    manager = psutil.Process(json.loads((folder / "cluster.json").read_text())["pid"])
    family = [manager, *manager.children(recursive=True)]
    cpu = sum(times.user + times.system for times in (process.cpu_times() for process in family))
    return Start(seconds, cpu, sum(process.memory_full_info().pss for process in family) / 2**20)


def shown(name: str, values: list[float]) -> str:
    """The median and the min of a quantity."""
    return f"{name} {statistics.median(values):.1f} (min {min(values):.1f})"


def main() -> int:
    """Run the command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout, with its stubs built")
    parser.add_argument("--rounds", type=count, default=3, help="starts of each (default: %(default)s)")
    chosen = parser.parse_args()
    checkouts = [ROOT, *([chosen.against.resolve()] if chosen.against else [])]
    found: dict[Path, list[Start]] = {checkout: [] for checkout in checkouts}
    for _ in range(chosen.rounds):
        for checkout in checkouts:
            found[checkout].append(start(checkout))
    medians = []
    for checkout, starts in found.items():
        parts = [
            shown("seconds", [one.seconds for one in starts]),
            shown("CPU seconds", [one.cpu_seconds for one in starts]),
            shown("MiB", [one.mebibytes for one in starts]),
        ]
        print(f"{checkout}: {', '.join(parts)}")
        medians.append(
            [statistics.median(times) for times in zip(*((s.seconds, s.mebibytes) for s in starts), strict=True)]
        )
    if len(medians) == 1:
        return 0
    time_ratio, memory_ratio = (own / other for own, other in zip(*medians, strict=True))
    print(f"time {time_ratio:.2f} (at most {MAX_TIME}), memory {memory_ratio:.2f} (at most {MAX_MEMORY})")
    return int(time_ratio > MAX_TIME or memory_ratio > MAX_MEMORY)


if __name__ == "__main__":
    sys.exit(main())
