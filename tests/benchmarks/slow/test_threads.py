"""benchmarks.threads: the cost of other busy programs is measured and judged. Its bound is for a machine of its own."""

import re
import subprocess
import sys

from cluster.plan import ROOT


def test_the_ratio_beside_two_busy_programs_is_printed_and_decides_the_exit_code() -> None:
    command = [sys.executable, "-m", "benchmarks.threads", "--rounds", "1"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    ratio = re.search(r"ratio ([\d.]+) \(at most 3\)", found.stdout)
    assert ratio, found.stdout + found.stderr
    assert found.returncode == (float(ratio[1]) > 3)
