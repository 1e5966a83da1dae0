"""The CPUs of a process, from its affinity and from cgroup trees made here."""

import os
from pathlib import Path

import pytest

from common import cpus


def tree(root: Path, own: str, files: dict[str, str]) -> Path:
    """A root with /proc/self/cgroup and files below /sys/fs/cgroup."""
    for name, text in [("proc/self/cgroup", own), *((f"sys/fs/cgroup/{name}", text) for name, text in files.items())]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/pod/a\n", {"pod/a/cpu.max": "max 100000\n", "pod/cpu.max": "400000 100000\n"}, 4),
        ("0::/pod/a\n", {"pod/a/cpu.max": "200000 100000\n", "pod/cpu.max": "400000 100000\n"}, 2),
        ("0::/of/the/host\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/../..\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "max 100000\n"}, cpus.MAX_CPUS),
        ("0::/\n", {}, cpus.MAX_CPUS),
        ("0::/\n", {"cpu.max": "nonsense"}, cpus.MAX_CPUS),
        ("4:memory:/a\n3:cpu,cpuacct:/docker/a\n", {
            "cpu,cpuacct/docker/a/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000\n",
        }, 2.5),
        ("3:cpu,cpuacct:/docker/a\n", {"cpu/cpu.cfs_quota_us": "80000\n", "cpu/cpu.cfs_period_us": "40000\n"}, 2),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, cpus.MAX_CPUS),
        ("3:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "1\n", "cpuset/cpu.cfs_period_us": "1\n"}, cpus.MAX_CPUS),
        ("1:name=systemd:/a:b\n0::/a:b\n", {"a:b/cpu.max": "700000 100000\n"}, 7),
        ("nonsense\n", {}, cpus.MAX_CPUS),
    ],
)  # fmt: skip
def test_the_quota_is_the_min_over_the_cgroups_of_the_process(
    tmp_path: Path, own: str, files: dict[str, str], expected: float
) -> None:
    assert cpus.quota(tree(tmp_path, own, files)) == expected


def test_without_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpus.quota(tmp_path) == cpus.MAX_CPUS


@pytest.mark.parametrize(("quota", "affinity", "expected"), [(1.5, 8, 1), (0.2, 8, 1), (4, 8, 4), (64, 3, 3)])
def test_the_cpus_are_the_affinity_bounded_by_the_whole_cpus_of_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: float, affinity: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)))
    assert cpus.available(tree(tmp_path, "0::/\n", {"cpu.max": f"{quota * 100000:.0f} 100000"})) == expected


def test_an_operators_own_spin_or_policy_stays() -> None:
    for own in ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}):
        environment = dict(own)
        cpus.bound_spin(environment)
        assert environment == own
