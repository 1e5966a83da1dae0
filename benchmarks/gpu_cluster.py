"""The four services and the gateway on one device, with a random checkpoint made there, under `hart bench`.

    python -m benchmarks.gpu_cluster [--device cuda] [--json FILE] [--logs FILE]

Makes the released architecture's four parts with random weights (a text encoder of 28 layers and 1,536 wide, a safety
model of 26 layers and 2,304 wide, with vocabularies of a few words), starts a cluster on them in bfloat16, and runs
`hart bench` through its gateway at several rates. Each figure is written as soon as it is measured. `--toy` does so at
a toy size, in float32 on a CPU.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness.cli import run_command, workplace
from benchmarks.harness.report import Report
from benchmarks.random_model import FULL, TOY, write_checkpoint
from benchmarks.timing import device_argument, device_name

RATES = ((1.0, 6.0), (4.0, 8.0), (12.0, 12.0))
"""Requests a second, and for how many seconds they arrive."""
DEADLINE = 30
SETTINGS = {"kv_cache_bytes": str(16 << 30), "cache_bytes": "0"}
"""Eight images in work at full size; each prompt is encoded anew."""


def bench(endpoint: str, rate: float, seconds: float) -> dict[str, Any]:
    """What `hart bench` reports of one rate."""
    words = ["--endpoint", endpoint, "--rate", str(rate), "--seconds", str(seconds), "--timeout", str(DEADLINE)]
    command = [sys.executable, "-m", "hart", "bench", *words, "--arrivals", "uniform"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(ended.stdout)
    except json.JSONDecodeError:
        return {"failed": f"exit code {ended.returncode}: {ended.stderr.strip()[-500:]}"}
    return answer


def keep_logs(folder: Path, target: Path) -> None:
    """The end of each process's log, in one file."""
    parts = [f"== {log.name}\n{log.read_text(errors='replace')[-20_000:]}" for log in sorted(folder.glob("*.log"))]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(parts))


def run(device: torch.device, toy: bool, report: Report, logs: Path | None) -> None:
    """Checkpoint, cluster, every rate."""
    from benchmarks.harness.local_cluster import local_cluster

    with workplace() as folder:
        start = time.perf_counter()
        write_checkpoint(folder / "random", TOY if toy else FULL, device)
        report.put("device", device_name(device))
        report.put("checkpoint made, seconds", round(time.perf_counter() - start, 1))
        if device.type == "cuda":
            torch.cuda.empty_cache()
        settings = {"device": str(device), "dtype": "float32" if toy else "bfloat16", "torch_threads": "1"}
        start = time.perf_counter()
        tempfile.tempdir = str(folder)  # where the cluster's own folder is made
        with local_cluster(str(folder / "random"), None, **SETTINGS, **settings) as endpoint:
            report.put("cluster ready, seconds", round(time.perf_counter() - start, 1))
            try:
                for rate, seconds in RATES:
                    report.put(f"{rate:g} requests a second", bench(endpoint, rate, 2 if toy else seconds))
            finally:
                if logs:
                    keep_logs(next(folder.glob("tmp*/logs")), logs)


def main() -> int:
    """Follow the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_cluster", description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=device_argument, default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--toy", action="store_true", help="a toy size: a rehearsal")
    parser.add_argument("--json", type=Path, help="write the figures to this file as they come")
    parser.add_argument("--logs", type=Path, help="write the end of each process's log to this file")
    arguments = parser.parse_args()
    if arguments.device.type == "cuda" and not torch.cuda.is_available():
        print("No CUDA device: this benchmark wants one GPU and torch built for it.", file=sys.stderr)
        return 2
    run(arguments.device, arguments.toy, Report(arguments.json), arguments.logs)
    return 0


if __name__ == "__main__":
    from cluster.supervisor import ClusterError

    sys.exit(run_command(main, ClusterError))
