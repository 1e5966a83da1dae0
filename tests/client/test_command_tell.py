"""hart.cli.inspect, hart.cli.trace, hart.cli.bench: output and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from hart.cli.inspect import spread

from tests.client.conftest import FAILURES, Failure, Gateway


def test_describe_prints_prompts_and_status_a_missing_stage(hart: Any) -> None:
    outcome = hart("describe")
    assert outcome.exit_code == 0
    assert "a green apple" in outcome.stdout
    assert json.loads(hart("describe", "--json").stdout)["models"][0]["shape"]["scales"] == [1, 2, 4]
    assert json.loads(hart("describe", "--json").stdout)["formats"] == ["png", "jpeg", "webp"]
    outcome = hart("status")
    assert outcome.exit_code == 4  # the fake's decoder has no ready replica
    assert "0/2" in outcome.stdout
    assert "no image can be drawn: decoder: no replica is ready (no answer from 127.0.0.1:1)" in outcome.stdout
    assert json.loads(hart("status", "--json").stdout)["stages"][0]["ready"] == 2


def test_example_prompts_are_spread_over_the_list() -> None:
    prompts = [f"thing {number}" for number in range(100)]
    shown = spread(prompts)
    assert len(shown) == 12
    assert {prompts.index(prompt) // 25 for prompt in shown} == {0, 1, 2, 3}
    assert spread(prompts[:3]) == prompts[:3]
    assert spread([]) == []


@pytest.mark.parametrize("reason", ["bad field", "unsafe"])
def test_bench_reports_refusals_and_their_exit_code(hart: Any, gateway: Gateway, reason: str) -> None:
    failure, kind, facts, code = FAILURES[reason]
    gateway.before = lambda _: setattr(gateway, "failure", replace(failure))  # after Describe
    outcome = hart("bench", "--rate", 40, "--seconds", 0.1, "--arrivals", "uniform")
    assert outcome.exit_code == code, outcome.output
    assert json.loads(outcome.stdout)["errors"] == {"INVALID_ARGUMENT": 4}
    assert outcome.stderr.count(kind) == 1
    assert all(str(word) in outcome.stderr for word in next(iter(facts.values())))

    gateway.failure, once = None, [replace(failure, times=1)]
    gateway.before = lambda _: setattr(gateway, "failure", once.pop()) if once else None
    outcome = hart("bench", "--rate", 40, "--seconds", 0.1, "--arrivals", "uniform")
    assert outcome.exit_code == 0, outcome.output
    assert kind in outcome.stderr


def test_percentiles_are_nearest_rank() -> None:
    from hart.cli.bench import percentiles, schedule

    found = percentiles([float(n) for n in range(100, 0, -1)])
    assert found is not None
    assert (found["p50"], found["p90"], found["p99"], found["max"]) == (50, 90, 99, 100)
    arrivals = schedule(100, 50, "poisson", 1)
    assert len(arrivals) == pytest.approx(5000, rel=0.1)
    assert arrivals == sorted(arrivals)


@pytest.mark.parametrize(
    "words",
    [
        ["--seconds", "inf"],
        ["--seconds", 1e9],
        ["--seconds", 1, "--seed", -1],
        ["--seconds", 1, "--seed", 2**64 - 1],
        ["--seconds", 1, "--format", "gif"],
        ["--seconds", 1, "--num-images", -1],
    ],
    ids=str,
)
def test_bench_refuses_invalid_options(hart: Any, gateway: Gateway, words: list[Any]) -> None:
    outcome = hart("bench", "--rate", 5, *words)
    assert outcome.exit_code == 2, outcome.output
    assert not gateway.requests


def test_bench_sends_a_given_empty_prompt(hart: Any, gateway: Gateway) -> None:
    assert hart("bench", "--rate", 1, "--seconds", 0.5, "--prompt", "").exit_code == 0
    assert [request.prompt for request in gateway.requests] == [""]


@pytest.mark.parametrize(
    "answer",
    [
        {"timings": {}},
        {"timings": 5},
        {"timings": {"wall_seconds": 1, "gateway_seconds": 0, "calls": [{}]}},
        {"timings": {"wall_seconds": "x", "gateway_seconds": 0, "calls": []}},
        {"timings": {"wall_seconds": 1, "gateway_seconds": 0, "calls": 7}},
    ],
)
def test_trace_refuses_malformed_json(hart: Any, tmp_path: Path, answer: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps(answer))
    outcome = hart("trace", "a.json")
    assert outcome.exit_code == 2, outcome.exception
    assert "error:" in outcome.output


def test_unimplemented_error_hints_at_a_wrong_endpoint(hart: Any, gateway: Gateway) -> None:
    gateway.failure = Failure(grpc.StatusCode.UNIMPLEMENTED, "not here", details=(), times=1)
    outcome = hart("generate", "x")
    assert outcome.exit_code == 1
    assert "check that the endpoint is a HART cluster gateway" in outcome.output
