"""The CPUs that this process may use, and how long OpenMP's threads spin for work.

Affinity: sched_getaffinity(2). Quota: cpu.max of cgroup v2, cpu.cfs_quota_us of cgroup v1 (the kernel's
admin-guide/cgroup-v2 and scheduler/sched-bwc).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

SPIN_COUNT = 20_000
"""GOMP_SPINCOUNT: the rounds that an OpenMP thread spins before it sleeps. libgomp's default keeps a core busy while
the thread that it waits for is not scheduled; without a spin every operation pays for a wake-up."""
MAX_CPUS = 1e6
"""The quota of a cgroup without one."""
_SPIN_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def bound_spin(environment: MutableMapping[str, str] = os.environ) -> None:
    """Bound the spin of OpenMP's threads, unless the environment sets it. Call it before torch is imported."""
    if not any(name in environment for name in _SPIN_VARIABLES):
        environment["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def available(root: Path = Path("/")) -> int:
    """CPUs of this process: its affinity, bounded by the whole CPUs of its cgroups' quota; at least 1."""
    return max(1, min(_affinity(), math.floor(quota(root))))


def quota(root: Path = Path("/")) -> float:
    """CPUs that the cgroups of this process may use, the min over its ancestors; MAX_CPUS without a quota.

    `root` is the folder that holds `proc` and `sys`.
    """
    return min(_quotas(root), default=MAX_CPUS)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        if not controllers:
            yield from _quotas_of(mount, path, _quota_v2)
        elif "cpu" in controllers.split(","):
            for name in {controllers, "cpu"}:
                yield from _quotas_of(mount / name, path, _quota_v1)


def _quotas_of(mount: Path, path: str, read: Callable[[Path], float]) -> Iterator[float]:
    """Quotas of a cgroup and its ancestors. In a container the path may be the host's: then only the mount counts."""
    parts = [part for part in path.split("/") if part and part != ".."]
    for depth in range(len(parts), -1, -1):
        with suppress(OSError, ValueError, ZeroDivisionError):
            yield read(mount.joinpath(*parts[:depth]))


def _quota_v2(folder: Path) -> float:
    amount, period = (folder / "cpu.max").read_text().split()
    return MAX_CPUS if amount == "max" else int(amount) / int(period)


def _quota_v1(folder: Path) -> float:
    amount = int((folder / "cpu.cfs_quota_us").read_text())
    return MAX_CPUS if amount < 0 else amount / int((folder / "cpu.cfs_period_us").read_text())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
