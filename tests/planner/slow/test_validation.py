"""The simulation against a real cluster whose engines sleep: a short form of `python -m planner validate`."""

from __future__ import annotations

from pathlib import Path

from planner import profile as profiles
from planner.__main__ import main
from planner.validation.cluster import sleeping_cluster
from planner.validation.compare import FLEET, compare

BOUND = 0.35
"""Wider than the command's 0.15: 150 requests only, beside other tests on the same cores."""


def test_simulated_times_are_near_those_of_real_processes() -> None:
    profile = profiles.load("sleeping").stretched(4)
    [row] = compare(profile, [0.6], 1, 150)
    assert row.failed == 0
    assert max(map(abs, row.errors)) <= BOUND, str(row)


def test_a_profile_of_a_running_cluster_has_the_seconds_that_its_engines_sleep(tmp_path: Path) -> None:
    profile, target = profiles.load("sleeping"), tmp_path / "found.json"
    with sleeping_cluster(profile, FLEET) as cluster:
        stages = [f"--stage={name}={found[0].address}" for name, found in cluster.stages.items()]
        words = ["profile", "--endpoint", cluster.endpoint, *stages, "--name", "found", "--output", str(target)]
        assert main(words) == 0
    found = profiles.load(str(target))
    for stage, expected in profile.stages.items():
        assert expected.alone() * 0.9 <= found.stages[stage].alone() <= expected.alone() * 1.6, stage
    assert found.stages["ar_generator"].max_batch_per_scale == (4, 4, 4, 4, 1, 1)
    assert found.gateway_seconds
