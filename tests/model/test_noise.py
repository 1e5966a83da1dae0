"""model.noise: an image's noise is a function of its seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.errors import SettingError
from model.noise import DIFFUSION_STEP, TOKEN_DRAW, SeededNoise, draw, draw_steps

seeds = st.integers(0, 2**64 - 1)


@given(st.lists(seeds, min_size=2, max_size=5), st.integers(0, 1))
def test_batched_noise_equals_that_of_each_seed_alone(several: list[int], k: int) -> None:
    sources = [SeededNoise(seed) for seed in several]
    for purpose, step in ((TOKEN_DRAW, 0), (DIFFUSION_STEP, 3)):
        together = draw(sources, purpose, k, step, (3, 5))
        for row, source in enumerate(sources):
            assert torch.equal(together[row], source.draw(purpose, k, step, (3, 5)))


def test_steps_drawn_together_equal_those_drawn_one_by_one() -> None:
    sources = [SeededNoise(seed) for seed in (3, 2**64 - 1)]
    together = draw_steps(sources, DIFFUSION_STEP, 5, 7, (3, 5))
    assert torch.equal(together, torch.stack([draw(sources, DIFFUSION_STEP, 5, step, (3, 5)) for step in range(7)]))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_bounds_is_named(seed: int) -> None:
    with pytest.raises(SettingError, match=f"seed: {seed}"):
        SeededNoise(seed)
