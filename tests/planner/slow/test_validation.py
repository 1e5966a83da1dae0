"""The simulation beside a real cluster whose engines sleep. How near its times are: `python -m planner validate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness.processes import Cluster
from planner import profile as profiles
from planner.__main__ import main
from planner.fleet import Fleet
from planner.validation.cluster import sleeping_cluster
from planner.validation.compare import Trial, compare_with

PROFILE = profiles.load("sleeping")
FLEET = Fleet(replicas={"safety": 1, "text_encoder": 1, "ar_generator": 1, "decoder": 1})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with sleeping_cluster(PROFILE, FLEET) as running:
        yield running


def test_neither_real_processes_nor_the_simulation_are_faster_than_the_profile(cluster: Cluster) -> None:
    [row] = compare_with(cluster, PROFILE, Trial([0.6], 1, 20, FLEET))
    assert row.failed == 0
    floor = PROFILE.stages["ar_generator"].alone() + PROFILE.stages["decoder"].alone()
    assert min(row.real[0], row.simulated[0]) >= floor * 0.98, str(row)
    assert row.real[0] <= row.real[1], str(row)
    assert row.simulated[0] <= row.simulated[1], str(row)


def test_a_profile_of_a_running_cluster_has_the_seconds_that_its_engines_sleep(
    cluster: Cluster, tmp_path: Path
) -> None:
    target = tmp_path / "found.json"
    stages = [f"--stage={name}={found[0].address}" for name, found in cluster.stages.items()]
    words = ["profile", "--endpoint", cluster.endpoint, *stages, "--name", "found", "--output", str(target)]
    assert main(words) == 0
    found = profiles.load(str(target))
    for stage, expected in PROFILE.stages.items():
        assert expected.alone() * 0.9 <= found.stages[stage].alone() <= expected.alone() * 1.6, stage
    assert found.stages["ar_generator"].max_batch_per_scale == (4, 4, 4, 4, 1, 1)
    assert found.gateway_seconds
