"""Stages on the real Triton Inference Server, which `make check` fetches where it can be had."""

import pytest

from benchmarks.drills import triton


@pytest.mark.timeout(900)  # two starts of two processes that import torch
def test_stages_on_triton_draw_the_same_and_their_death_and_return_are_a_replicas(holds):
    if missing := triton.available():
        pytest.skip(missing)
    holds(triton.triton, 5.0)
