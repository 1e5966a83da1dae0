"""Seconds and memory of work on one device. Knows no model."""

import argparse
import resource
import time
from collections.abc import Callable
from contextlib import suppress

import torch


def wait_for(device: torch.device) -> None:
    """Returns when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, work: Callable[[], object]) -> float:
    """One run's wall time, the device's part included."""
    wait_for(device)
    start = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - start


def peak_gigabytes(device: torch.device) -> float:
    """The most held so far: of the device since the last reset, or of the process where that is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def device_name(device: torch.device) -> str:
    """The card's name, or the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def device_argument(text: str) -> torch.device:
    """A command line's device that can be timed: the CPU or a CUDA device."""
    with suppress(RuntimeError):  # torch raises it with every device type that it supports
        if (found := torch.device(text)).type in ("cpu", "cuda"):
            return found
    raise argparse.ArgumentTypeError(f"{text}: not cpu, cuda or cuda:N")


def matrix_rate(device: torch.device, side: int = 8192, repeats: int = 10) -> float:
    """FLOP/s of a bfloat16 matrix product of `side` on random data: the ceiling that floors are computed with."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3 if device.type == "cuda" else 1):
        a @ b
    taken = seconds(device, lambda: [a @ b for _ in range(repeats)])
    return 2 * side**3 * repeats / taken


def copy_rate(device: torch.device, size: int = 1 << 30, repeats: int = 10) -> float:
    """Bytes/s of a copy on the device, read and written bytes counted."""
    a, b = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    b.copy_(a)
    taken = seconds(device, lambda: [b.copy_(a) for _ in range(repeats)])
    return 2 * size * repeats / taken
