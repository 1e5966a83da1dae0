"""python -m planner without its packages, as in an environment that only runs the cluster."""

import subprocess
import sys

from cluster.plan import ROOT


def test_a_missing_package_is_named_with_the_remedy() -> None:
    code = "import sys, runpy; sys.modules['simpy'] = None; runpy.run_module('planner', run_name='__main__')"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr == "planner: the package simpy is not installed: make setup installs it\n"
