"""Device, precision and number of threads for inference, and the device's memory."""

import ctypes
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import torch

from common import cpus
from model.errors import SettingError

log = logging.getLogger(__name__)

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Parameter numbers of glibc's mallopt."""
MAX_REUSED, MAX_KEPT = 32 << 20, 512 << 20
"""Bytes. Tensors up to MAX_REUSED (glibc's own max) reuse freed memory; the process keeps up to MAX_KEPT of it."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO = "auto"
PRECISIONS = (AUTO, *DTYPES)
INSTRUCTIONS = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
"""The CPU flags, as Linux names them, of which one computes in a precision."""


@dataclass(frozen=True)
class Compute:
    """A device, the precision of weights and activations, and the number of CPU threads."""

    device: torch.device
    dtype: torch.dtype
    threads: int
    """CPU threads per operation; 0: torch's default, at most the CPUs that the process may use."""

    @classmethod
    def of(cls, device: str, dtype: str, threads: int = 0) -> Self:
        """From names; "auto" is a GPU in bfloat16 where there is one, else the CPU in float32.

        Warns of a precision that the CPU has no instructions for. Raises SettingError for an unavailable device or an
        unknown precision.
        """
        device = automatic_device() if device == AUTO else device
        try:
            chosen = torch.device(device)
            torch.empty(1, device=chosen)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise SettingError("device", f"{device!r} cannot be used: {reason}") from None
        dtype = automatic_dtype(chosen) if dtype == AUTO else dtype
        if dtype not in DTYPES:
            raise SettingError("dtype", f"{dtype!r}: expected one of {', '.join(PRECISIONS)}")
        if chosen.type == "cpu":
            warn_of_slow_precision(dtype)
        return cls(chosen, DTYPES[dtype], threads)

    def own_this_thread(self) -> None:
        """Sets the number of threads for operations started by the calling thread.

        On a CPU, also makes the process keep freed memory for the next image.
        """
        torch.set_num_threads(self.threads or min(torch.get_num_threads(), cpus.available()))
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


def automatic_device() -> str:
    """The GPU if torch can use one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def automatic_dtype(device: torch.device) -> str:
    """bfloat16 on a GPU that computes in it, else float32."""
    capable = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if capable else "float32"


@cache
def warn_of_slow_precision(dtype: str) -> None:
    """Warn, once in a process, if the CPU has no instructions for a precision, with the measured factor."""
    flags = cpu_flags()
    if dtype in INSTRUCTIONS and flags and not flags & INSTRUCTIONS[dtype]:
        factor = _product_seconds(DTYPES[dtype]) / _product_seconds(torch.float32)
        log.warning(
            "this CPU has no instructions for %s: matrix products take %.1f times as long as in float32",
            dtype,
            factor,
        )


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """The CPU's features by Linux's names; empty where they cannot be read."""
    with suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return set(value.split())
    return set()


def _product_seconds(dtype: torch.dtype, repeats: int = 5) -> float:
    a, b = torch.ones(64, 512, dtype=dtype), torch.ones(512, 1024, dtype=dtype)
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - begun)
    return min(times)


def keep_freed_memory() -> None:
    """Makes glibc keep the memory of freed tensors instead of returning it to the system. No-op without glibc.

    By default glibc returns it, and every image starts with thousands of page faults: 20% of its time in a virtual
    machine (docs/performance.md).
    """
    with suppress(OSError, AttributeError):  # no glibc
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, MAX_REUSED)
        library.mallopt(TRIM_THRESHOLD, MAX_KEPT)
