"""planner: workloads, the autoscaler's formula, the search, the chart's values, profiles, the command."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner import profile as profiles
from planner import values_file, workload
from planner.__main__ import main
from planner.costs import BatchCost
from planner.errors import PlanError
from planner.fleet import Autoscaling, Fleet
from planner.overheads import quantiles
from planner.profile import Profile
from planner.search import Search, Target
from planner.simulation.autoscaler import desired_replicas
from planner.simulation.cluster import simulate
from planner.workload import Mix


@pytest.fixture
def sleeping() -> Profile:
    return profiles.load("sleeping")


# -- workloads -----------------------------------------------------------------------------------------------------


def test_rates_of_synthetic_workloads() -> None:
    mix, source = Mix(), random.Random(3)
    steady = list(workload.constant(20, 200, mix, source))
    assert len(steady) == pytest.approx(4000, rel=0.1)
    day = [one.at for one in workload.daily(2, 20, 400, mix, source)]
    assert sum(150 <= at < 250 for at in day) > 4 * sum(at < 50 or at >= 350 for at in day)
    peak = [one.at for one in workload.burst(2, 40, (50, 60), 100, mix, source)]
    assert sum(50 <= at < 60 for at in peak) == pytest.approx(400, rel=0.2)


def test_a_trace_is_the_audit_lines_by_their_arrival(tmp_path: Path) -> None:
    lines = [
        {"time": "2026-11-01T10:00:05.000Z", "message": "generate", "audit": {"images": 2, "seconds": 4.0}},
        {"time": "2026-11-01T10:00:06.500Z", "audit": {"images": 1, "seconds": 0.5, "preview_every": 3}},
        {"time": "2026-11-01T10:00:07.000Z", "message": "replica ready"},
        {"time": "2026-11-01T10:00:03.000Z", "audit": {"images": 1, "seconds": 1.0}},
    ]
    log = tmp_path / "audit.jsonl"
    log.write_text("not JSON\n" + "\n".join(map(json.dumps, lines)))
    found = workload.trace(log, speed=2.0)
    assert [(one.at, one.images, one.preview_every) for one in found] == [(0.0, 2, 0), (0.5, 1, 0), (2.5, 1, 3)]


def test_a_trace_line_without_a_time_is_named(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_text(json.dumps({"audit": {"images": 1, "seconds": 1.0}, "time": "noon"}))
    with pytest.raises(PlanError, match=r"line 1: time: expected ISO 8601, not 'noon'"):
        workload.trace(log)


# -- the autoscaler ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "replicas", "wanted"), [(1.6, 2, 2), (1.7, 2, 2), (1.9, 2, 3), (0.1, 3, 1), (9, 2, 4)]
)
def test_the_autoscaler_keeps_the_target_within_tolerance_and_bounds(load: float, replicas: int, wanted: int) -> None:
    assert desired_replicas(load, replicas, Autoscaling(target_load=0.8, max_replicas=4)) == wanted


def test_a_burst_adds_replicas_after_the_delays_and_a_lull_removes_them(sleeping: Profile) -> None:
    policy = {"ar_generator": Autoscaling(max_replicas=6, scale_down_seconds=60)}
    arrivals = list(workload.burst(1, 15, (60, 180), 900, Mix(), random.Random(1)))
    grown = simulate(sleeping.with_stage("ar_generator", start_seconds=30), Fleet(autoscaling=policy), arrivals)
    used = grown.usage["ar_generator"]
    assert 3 <= used.max_replicas <= 6
    assert used.replica_seconds < 900 * used.max_replicas * 0.8
    fixed = simulate(sleeping, Fleet(), arrivals)
    failed = [sum(one.failure is not None for one in run.outcomes) for run in (grown, fixed)]
    assert failed[0] < failed[1]


# -- the search ----------------------------------------------------------------------------------------------------


def test_a_plan_meets_its_target_and_one_generator_less_does_not(sleeping: Profile) -> None:
    target = Target(rate=15, p95=0.8)
    searching = Search(sleeping, Fleet(), Mix(), target)
    found = searching.plan()
    assert found.summary.p95 <= 0.8
    fewer = {**found.fleet.replicas, "ar_generator": found.fleet.count("ar_generator") - 1}
    worse = searching.summary(fewer)
    assert worse.p95 > 0.8 or worse.refused_share > target.refused


def test_a_p95_below_one_image_alone_is_refused(sleeping: Profile) -> None:
    with pytest.raises(PlanError, match=r"p95 0\.1 s: one image alone takes 0\.195 s on sleeping"):
        Search(sleeping, Fleet(), Mix(), Target(rate=1, p95=0.1)).plan()


def test_values_of_a_plan_have_only_keys_that_the_chart_knows(sleeping: Profile) -> None:
    fleet = Fleet(replicas={"ar_generator": 7}, autoscaling={"ar_generator": Autoscaling(max_replicas=9)})
    found = yaml.safe_load(values_file.text(sleeping, fleet, "a plan"))
    schema = json.loads(Path("k8s/chart/values.schema.json").read_text())
    assert not list(unknown(found, schema, schema, ""))
    assert found["stages"]["ar_generator"]["replicas"] == 7


def unknown(values: Any, schema: Any, root: Any, path: str) -> Any:
    """Paths of keys that the schema does not name."""
    while "$ref" in schema:
        target = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    if not isinstance(values, dict):
        return
    known = dict(schema.get("properties", {}))
    for part in schema.get("allOf", []):
        while "$ref" in part:
            target = root
            for name in part["$ref"].removeprefix("#/").split("/"):
                target = target[name]
            part = target
        known |= part.get("properties", {})
    for key, value in values.items():
        if key not in known:
            yield f"{path}.{key}"
        else:
            yield from unknown(value, known[key], root, f"{path}.{key}")


# -- profiles and the command --------------------------------------------------------------------------------------


def test_costs_are_linear_between_sizes_and_constant_per_item_beyond() -> None:
    cost = BatchCost.of({1: 0.1, 3: 0.2}, "x")
    assert [cost.seconds(n) for n in (1, 2, 3, 6)] == pytest.approx([0.1, 0.15, 0.2, 0.4])
    with pytest.raises(PlanError, match="x: expected at least one batch size"):
        BatchCost.of({}, "x")


@pytest.mark.parametrize("path", sorted(profiles.FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_every_profile_loads_and_returns_to_the_same_text(path: Path) -> None:
    found = profiles.load(path.stem)
    assert profiles.parse(json.loads(found.to_json())) == profiles.parse(json.loads(path.read_text()))
    assert found.name == path.stem


def test_quantiles_stand_for_their_distribution() -> None:
    assert quantiles([3, 1, 2]) == (1, 2, 3)
    assert quantiles(range(1000), 4) == (125, 375, 625, 875)


def test_the_command_prints_figures_and_writes_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["simulate", "--profile", "sleeping", "--rate", "3", "--seconds", "60", "--price", "2"]
    assert main(words) == 0
    assert "refused           0.00%" in capsys.readouterr().out
    target = tmp_path / "values.yaml"
    assert main(["plan", "--profile", "sleeping", "--rate", "8", "--p95", "1", "--values", str(target)]) == 0
    assert yaml.safe_load(target.read_text())["stages"]["ar_generator"]["replicas"] >= 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--replicas", "painter=2"], "--replicas painter=2: expected one of safety"),
        (["--images", "0"], "--images 0: expected counts of 1 or more"),
        (["--set", "decoder.colour=1"], "--set decoder.colour=1: decoder.colour is no number of the profile"),
        (["--autoscale", "decoder=3:1"], "--autoscale decoder=3:1: expected STAGE=MIN:MAX"),
        (["--profile", "h300"], "profile 'h300': no such file; there are"),
    ],
)
def test_a_wrong_argument_is_a_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--profile", "sleeping", "--rate", "1", *words]) == 2
    assert said in capsys.readouterr().err
