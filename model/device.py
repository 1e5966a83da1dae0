"""Device, precision and number of threads for inference, and the device's memory."""

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
"""Parameter numbers of glibc's mallopt."""
MAX_REUSED, MAX_KEPT = 32 << 20, 512 << 20
"""Bytes. Tensors up to MAX_REUSED (glibc's own max) reuse freed memory; the process keeps up to MAX_KEPT of it."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device, the precision of weights and activations, and the number of CPU threads."""

    device: torch.device
    dtype: torch.dtype
    threads: int
    """CPU threads per operation; 0: torch's default."""

    @classmethod
    def of(cls, device: str, dtype: str, threads: int = 0) -> Self:
        """From names. Raises SettingError for an unavailable device or an unknown precision."""
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
        """Sets the number of threads for operations started by the calling thread.

        On a CPU, also makes the process keep freed memory for the next image.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.device.type == "cpu":
            keep_freed_memory()

    def wait(self) -> None:
        """Blocks until the device has finished all submitted work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """The duration of `work` in seconds, including its work on the device."""
        self.wait()
        begun = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - begun

    @staticmethod
    def is_lost(error: BaseException) -> bool:
        """Whether every later operation on the device will fail too, until the process restarts."""
        return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)

    @property
    def precision(self) -> str:
        """The name of the precision."""
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        if self.device.type != "cuda":
            return str(self.device)
        return f"{self.device} {torch.cuda.get_device_name(self.device)}"

    def capacity(self) -> int:
        """Total memory in bytes: the device's, or on a CPU the machine's or its container's limit."""
        if self.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.device).total_memory)
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
        with suppress(OSError, ValueError):  # no control group, or one without a limit ("max")
            limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
        return min(limits)

    def memory(self) -> int:
        """Memory in use in bytes. On a GPU as the device reports it, other processes and the driver included. On a CPU
        the process's. Cheap; safe to call from any thread."""
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            return total - free
        return self.allocated()

    def allocated(self) -> int:
        """Memory in bytes that this process's tensors hold on the GPU, or on a CPU all of the process's memory."""
        if self.device.type == "cuda":
            return int(torch.cuda.memory_allocated(self.device))
        try:
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0


def keep_freed_memory() -> None:
    """Makes glibc keep the memory of freed tensors instead of returning it to the system. No-op without glibc.

    By default glibc returns it, and every image starts with thousands of page faults: 20% of its time in a virtual
    machine (docs/performance.md).
    """
    with suppress(OSError, AttributeError):  # no glibc
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, MAX_REUSED)
        library.mallopt(TRIM_THRESHOLD, MAX_KEPT)
