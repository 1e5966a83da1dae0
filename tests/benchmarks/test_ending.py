"""A benchmark leaves nothing behind, however it ends."""

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


def told(program: str, number: int) -> list[str]:
    """The lines that it prints before the signal ends it."""
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
def test_a_signal_stops_every_cluster_that_a_benchmark_has_started(number: int) -> None:
    first, second, *stopped = told(CLUSTER, number)
    assert stopped == ["stopped", "stopped"]
    assert not Path(first).exists()
    assert not Path(second).exists()


def test_a_signal_ends_the_processes_and_removes_the_folder_of_a_workplace() -> None:
    folder, child = told(CHILD, signal.SIGTERM)
    assert not Path(folder).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(child), 0)
