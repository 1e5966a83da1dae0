"""Every kernel compiles for a GPU, in every variant that the model uses; no GPU is needed for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.kernels.interpreter import require_triton

SCRIPT = Path(__file__).with_name("compiled.py")


def test_every_kernel_compiles_for_an_h100_without_spilling() -> None:
    require_triton()
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, for which the other tests compile them")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(SCRIPT.parents[2])
    ended = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, check=False, env=environment, timeout=250
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    names = {line.split(":")[0] for line in lines}
    assert names == {
        f"kernels.{name}"
        for name in (
            "group_norm._apply_kernel",
            "group_norm._line_kernel",
            "group_norm._sum_kernel",
            "bias_add._bias_add_kernel",
            "layer_norm._layer_norm_kernel",
            "narrow_convolution._narrow_convolution_kernel",
            "rms_norm._rms_norm_kernel",
            "rotary._rotary_kernel",
            "sampling._sampling_kernel",
            "silu_mul._silu_mul_kernel",
            "split_product._split_kernel",
        )
    }
    assert all(line.endswith("spills 0") for line in lines)
