"""Two torch threads on a busy machine, with real programs beside them."""

import subprocess
import sys

from cluster.plan import ROOT


def test_two_threads_beside_two_busy_programs_take_at_most_three_times_as_long() -> None:
    command = [sys.executable, "-m", "benchmarks.threads", "--rounds", "5"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
