"""The spin of OpenMP's threads in the processes that import torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.cpus import SPIN_COUNT
from common.stages import STAGES

ROOT = Path(__file__).resolve().parents[3]
STARTED = ["model.__main__", *(f"services.{name}.__main__" for name in STAGES)]


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp prints its settings on Linux")
@pytest.mark.parametrize("module", STARTED)
def test_every_process_with_a_model_bounds_the_spin_before_torch_is_imported(module: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
    code = f"import {module}, torch"
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in found.stderr
