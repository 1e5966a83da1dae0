"""Where and how a part computes: device, precision, threads. Knows no part."""

import ctypes
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from model.errors import SettingError

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Of glibc's mallopt."""
MAX_REUSED, MAX_KEPT = 32 << 20, 512 << 20
"""Bytes: tensors up to the first (glibc's own limit) are taken from memory that was freed before, of which up to the
second is kept."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device, the precision of weights and activations there, and how many threads of the CPU help."""

    device: torch.device
    dtype: torch.dtype
    threads: int
    """Of one operation on the CPU; 0: as many as torch chooses."""

    @classmethod
    def of(cls, device: str, dtype: str, threads: int = 0) -> Self:
        """By name. Raises SettingError for a device that this machine does not have, or an unknown precision."""
        try:
            chosen = torch.device(device)
            torch.empty(1, device=chosen)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise SettingError("device", f"{device!r} cannot be used: {reason}") from None
        if dtype not in DTYPES:
            raise SettingError("dtype", f"{dtype!r}: expected one of {', '.join(DTYPES)}")
        return cls(chosen, DTYPES[dtype], threads)

    def own_this_thread(self) -> None:
        """Applies the number of threads, which holds for operations that begin on the calling thread; on a CPU the
        process keeps freed memory for the next picture from then on."""
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.device.type == "cpu":
            keep_freed_memory()

    def wait(self) -> None:
        """Returns when the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """How long the work takes, the device's part included."""
        self.wait()
        begun = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - begun

    @staticmethod
    def is_lost(error: BaseException) -> bool:
        """Whether the device will answer nothing but errors from now on, until the process begins anew."""
        return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)

    @property
    def precision(self) -> str:
        """The precision's name."""
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        if self.device.type != "cuda":
            return str(self.device)
        return f"{self.device} {torch.cuda.get_device_name(self.device)}"

    def capacity(self) -> int:
        """Bytes that there are: the device's own, on a CPU what the machine or its container may hold."""
        if self.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.device).total_memory)
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
        with suppress(OSError, ValueError):  # no control group, or one without a limit ("max")
            limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
        return min(limits)

    def memory(self) -> int:
        """Bytes in use: the device's own, on a CPU what the process holds. Cheap, from any thread."""
        if self.device.type == "cuda":
            return int(torch.cuda.memory_allocated(self.device))
        try:
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0


def keep_freed_memory() -> None:
    """Tells glibc not to give back to the system what a picture's tensors leave; elsewhere does nothing.

    By default it does, and every picture begins with thousands of page faults: a fifth of its time in a virtual machine
    (docs/performance.md).
    """
    with suppress(OSError, AttributeError):  # no glibc
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, MAX_REUSED)
        library.mallopt(TRIM_THRESHOLD, MAX_KEPT)
