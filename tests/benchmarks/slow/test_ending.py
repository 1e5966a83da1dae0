"""benchmarks.ending: a benchmark cleans up however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.plan import ROOT

CLUSTER = """
import signal
from benchmarks.harness import local_cluster
local_cluster.supervisor.up = lambda plan: print(plan.folder)
local_cluster.supervisor.down = lambda plan: print("stopped", flush=True)
with local_cluster.local_cluster(), local_cluster.local_cluster():
    signal.raise_signal({number})
"""
CHILD = """
import signal, subprocess, sys
from benchmarks.harness.cli import workplace
with workplace() as folder:
    child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
    print(folder, child.pid, sep="\\n", flush=True)
    signal.raise_signal({number})
"""


def run_program(program: str, number: int) -> list[str]:
    """The lines that the program prints before the signal ends it."""
    found = subprocess.run(
        [sys.executable, "-c", program.format(number=int(number))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert found.returncode == 128 + number
    return found.stdout.splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_every_started_cluster(number: int) -> None:
    first, second, *stopped = run_program(CLUSTER, number)
    assert stopped == ["stopped", "stopped"]
    assert not Path(first).exists()
    assert not Path(second).exists()


def test_signal_ends_processes_and_removes_the_temporary_folder() -> None:
    folder, child = run_program(CHILD, signal.SIGTERM)
    assert not Path(folder).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(child), 0)
