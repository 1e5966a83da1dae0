"""Which implementation of an operation runs: kernels on a CUDA device while no gradients are kept, twins elsewhere."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

MODES = ("auto", "twin", "kernel")
"""By the device; twins everywhere; kernels everywhere (which a CPU can do in Triton's interpreter alone)."""
_mode = "auto"


@contextmanager
def using(mode: str) -> Iterator[None]:
    """Chooses one of MODES for the process while the block runs."""
    global _mode
    if mode not in MODES:
        raise ValueError(f"mode = {mode!r}: expected one of {', '.join(MODES)}")
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def kernel_runs(*tensors: Tensor) -> bool:
    """Whether an operation on these tensors runs as a kernel. Kernels have no gradients and take one dtype at a time
    where they take several tensors."""
    if _mode == "twin" or torch.is_grad_enabled():
        return False
    if any(tensor.dtype != tensors[0].dtype for tensor in tensors[1:]):
        return False
    return _mode == "kernel" or (tensors[0].is_cuda and triton_is_installed())


@cache
def triton_is_installed() -> bool:
    """Whether triton can be imported; looks without importing it."""
    return importlib.util.find_spec("triton") is not None
