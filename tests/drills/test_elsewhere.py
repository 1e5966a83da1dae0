"""benchmarks.drills.triton: stages on the real Triton Inference Server, if `make check-all` could fetch it."""

import pytest

from benchmarks.drills import triton
from tests.drills.conftest import Hold


@pytest.mark.timeout(900)  # two starts of two processes that import torch
def test_triton_stages_give_the_same_images_and_survive_restarts(holds: Hold) -> None:
    if missing := triton.available():
        pytest.skip(missing)
    holds(triton.triton, 5.0)
