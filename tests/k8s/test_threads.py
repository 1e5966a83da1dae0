"""The chart's torch threads, rendered by the real helm."""

import pytest

from tests.k8s.chart import STAGES, environment, pod


@pytest.mark.parametrize(("limit", "threads"), [("4", "4"), ('"4"', "4"), ("1500m", "1"), ("8000m", "8"), ("0.5", "1")])
def test_a_stage_runs_as_many_threads_as_its_cpu_limit_has_whole_cpus(limit: str, threads: str) -> None:
    for stage in STAGES:
        values = f"{{stages: {{{stage}: {{resources: {{requests: {{cpu: 100m}}, limits: {{cpu: {limit}}}}}}}}}}}"
        assert environment(pod(values, stage)["containers"][0])["HART_TORCH_THREADS"] == threads


def test_an_operators_own_number_of_threads_stays() -> None:
    values = "{stages: {decoder: {settings: {torch_threads: 3}}}}"
    assert environment(pod(values, "decoder")["containers"][0])["HART_TORCH_THREADS"] == "3"
