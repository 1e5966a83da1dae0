"""Kernels on the device of --device: natively on a GPU, in Triton's interpreter on a CPU (skipped without triton)."""

import os
import sys
from collections.abc import Iterator

import pytest
import torch

from kernels import choose

torch.set_num_threads(1)


@pytest.fixture
def kernels(device: str) -> Iterator[str]:
    """The device; while the test runs, operations are kernels there."""
    if not choose.triton_is_installed():
        pytest.skip("triton is not installed")
    if device == "cpu":
        if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
            pytest.skip("triton was imported without TRITON_INTERPRET=1: its interpreter can no longer be had")
        os.environ["TRITON_INTERPRET"] = "1"
    with torch.no_grad(), choose.using("kernel"):
        yield device
