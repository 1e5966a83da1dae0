"""A picture's noise is a function of its own seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.philox import key_of, philox
from model.errors import SettingError
from model.noise import DIFFUSION_STEP, TOKEN_DRAW, SeededNoise, draw, draw_seed, draw_steps, seed_of_image

seeds = st.integers(0, 2**64 - 1)


@given(st.lists(seeds, min_size=2, max_size=5), st.integers(0, 1))
def test_a_batch_draws_what_each_picture_draws_alone(several: list[int], k: int) -> None:
    sources = [SeededNoise(seed) for seed in several]
    for purpose, step in ((TOKEN_DRAW, 0), (DIFFUSION_STEP, 3)):
        together = draw(sources, purpose, k, step, (3, 5))
        for row, source in enumerate(sources):
            assert torch.equal(together[row], source.draw(purpose, k, step, (3, 5)))


def test_steps_drawn_at_once_are_those_drawn_one_by_one() -> None:
    sources = [SeededNoise(seed) for seed in (3, 2**64 - 1)]
    together = draw_steps(sources, DIFFUSION_STEP, 5, 7, (3, 5))
    assert torch.equal(together, torch.stack([draw(sources, DIFFUSION_STEP, 5, step, (3, 5)) for step in range(7)]))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_bounds_is_named(seed: int) -> None:
    with pytest.raises(SettingError, match=f"seed: {seed}"):
        SeededNoise(seed)


@given(seeds, st.integers(1, 8))
def test_images_of_a_request_have_derived_seeds(seed: int, i: int) -> None:
    assert seed_of_image(seed, 0) == seed
    low, high, _, _ = philox((i, 0, 0xFFFFFFFF, 0), key_of(seed))
    assert seed_of_image(seed, i) == (low + high * 2**32) % 2**53


def test_drawn_seeds_fit_into_json_numbers() -> None:
    drawn = {draw_seed() for _ in range(200)}
    assert len(drawn) == 200
    assert max(drawn) < 2**53
