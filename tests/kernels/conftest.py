"""Kernels on the device of --device: natively on a GPU, in Triton's interpreter on a CPU (skipped without triton)."""

from collections.abc import Iterator

import pytest
import torch

from kernels import choose
from tests.kernels.interpreter import prepare

torch.set_num_threads(1)


@pytest.fixture
def kernels(device: str) -> Iterator[str]:
    """The device; while the test runs, operations are kernels there."""
    prepare(device)
    with torch.no_grad(), choose.using("kernel"):
        yield device
