"""model.noise: an image's noise is a function of its seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model import noise
from model.errors import SettingError
from model.noise import DIFFUSION_START, DIFFUSION_STEP, GUMBEL, TOKEN_DRAW, SeededNoise, draw, draw_diffusion

seeds = st.integers(0, 2**64 - 1)


@given(st.lists(seeds, min_size=2, max_size=5), st.integers(0, 1))
def test_batched_noise_equals_that_of_each_seed_alone(several: list[int], k: int) -> None:
    sources = [SeededNoise(seed) for seed in several]
    for purpose, step in ((TOKEN_DRAW, 0), (DIFFUSION_STEP, 3)):
        together = draw(sources, purpose, k, step, (3, 5))
        for row, source in enumerate(sources):
            assert torch.equal(together[row], source.draw(purpose, k, step, (3, 5)))


def test_the_diffusions_noise_drawn_at_once_is_that_drawn_one_by_one() -> None:
    sources = [SeededNoise(seed) for seed in (3, 2**64 - 1)]
    start, fresh = draw_diffusion(sources, 5, 7, (3, 5))
    assert torch.equal(start, draw(sources, DIFFUSION_START, 5, 0, (3, 5)))
    assert torch.equal(fresh, torch.stack([draw(sources, DIFFUSION_STEP, 5, step, (3, 5)) for step in range(7)]))
    assert len(draw_diffusion(sources, 5, 0, (3, 5))[1]) == 0


@pytest.mark.parametrize("together", [1, 100, 10**6])
def test_scales_drawn_ahead_are_those_drawn_one_by_one(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    monkeypatch.setattr(noise, "MAX_TOGETHER", together)
    scales = noise.Scales((1, 2, 3, 5), 7)
    sources = [SeededNoise(5), SeededNoise(6), SeededNoise(7, ahead=False)]
    for k, side in enumerate(scales.sides):
        mine = sources if k else sources[:1]  # the others begin later
        found = noise.draw_scale(mine, k, scales)
        for purpose, drawn in zip((TOKEN_DRAW, GUMBEL), found, strict=True):
            assert torch.equal(drawn, draw(mine, purpose, k, 0, (side**2, 7)))
    assert not any(source.drawn for source in sources)


def test_an_image_that_repeats_a_scale_draws_the_same_again() -> None:
    scales, source = noise.Scales((1, 2, 3), 7), SeededNoise(5)
    assert len(noise.draw_scale([source], 0, scales, mixtures=False)) == 1
    first = noise.draw_scale([source], 1, scales)
    assert all(torch.equal(a, b) for a, b in zip(first, noise.draw_scale([source], 1, scales), strict=True))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_bounds_is_named(seed: int) -> None:
    with pytest.raises(SettingError, match=f"seed: {seed}"):
        SeededNoise(seed)
