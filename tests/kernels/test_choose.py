"""Who computes: twins on a CPU and where gradients are kept, and a CPU never imports triton."""

import os
import subprocess
import sys

import pytest
import torch

from kernels import choose
from kernels.silu_mul import silu_mul

ALL = "from kernels import choose, group_norm, launch, layer_norm, philox, rms_norm, rotary, sampling, silu_mul"


def test_importing_and_using_kernels_on_a_cpu_does_not_import_triton() -> None:
    code = f"{ALL}\nimport sys, torch\nwith torch.no_grad(): silu_mul.silu_mul(torch.ones(2), torch.ones(2))\n"
    code += "print('triton' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ended.stdout.strip() == "False"


def test_kernels_import_common_alone() -> None:
    rooms = {"model", "training", "services", "gateway", "runtime", "cluster"}
    code = f"{ALL}\nimport sys\nprint(sorted({rooms} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_a_cpu_takes_the_twin_and_the_choice_can_be_made_for_it() -> None:
    x = torch.ones(3)
    with torch.no_grad():
        assert not choose.kernel_runs(x)
        with choose.using("kernel"):
            assert choose.kernel_runs(x)
            with choose.using("twin"):
                assert not choose.kernel_runs(x)
            assert choose.kernel_runs(x)
        assert not choose.kernel_runs(x)


def test_gradients_and_mixed_precisions_are_the_twins() -> None:
    x = torch.ones(3, requires_grad=True)
    with choose.using("kernel"):
        assert not choose.kernel_runs(x)
        silu_mul(x, x).sum().backward()
        with torch.inference_mode():
            assert not choose.kernel_runs(x, x.bfloat16())
    assert x.grad is not None


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(ValueError, match="mode = 'fast': expected one of auto, twin, kernel"), choose.using("fast"):
        pass
