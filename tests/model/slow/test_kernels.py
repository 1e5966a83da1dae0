"""Images drawn by kernels and by their twins: the same tokens, and latents and pixels within rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kernels import choose
from model.generation import GenerationState
from model.noise import SeededNoise
from model.params import SamplingParams
from tests.kernels.interpreter import prepare
from tests.model.golden import ImageCase

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = ("plain", "adaln", "shared_adaln", "l2_norm")
SEEDS = (3, 2**40 + 5)


@pytest.fixture
def kernels(device: str) -> str:
    prepare(device)
    return device


def draw(golden: ImageCase, mode: str, settings: list[SamplingParams], scales: int) -> tuple[list[Tensor], Tensor]:
    """Tokens of the first scales, and the latents after them, of one image for each of the settings."""
    with choose.using(mode), torch.inference_mode():
        generator = golden.generator(slots=3)
        given = golden.conditioning()
        blocker = generator.begin(given[0], SeededNoise(0, golden.device), settings[0])
        states: list[GenerationState] = [
            generator.begin(given[row % golden.batch], SeededNoise(seed, golden.device), chosen)
            for row, (seed, chosen) in enumerate(zip(SEEDS, settings, strict=False))
        ]
        generator.release(blocker)  # so that the images' rows are not the first ones
        tokens = []
        for _ in range(scales):
            generator.advance(states)
            tokens.append(torch.stack([state.tokens for state in states if state.tokens is not None]))
        return tokens, torch.stack([state.latent for state in states])


def assert_alike(found: tuple[list[Tensor], Tensor], expected: tuple[list[Tensor], Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(found[0], expected[0], strict=True))
    assert (found[1] - expected[1]).abs().max() < 2e-3


SMOOTH, DRAWN = SamplingParams(4.0, True, 0.0), SamplingParams(2.0, False, 0.0)


@pytest.mark.parametrize("case", CASES)
def test_kernels_draw_what_their_twins_draw(case: str, kernels: str) -> None:
    golden = ImageCase(GOLDEN / case, kernels)
    scales = 2 if kernels == "cpu" else golden.checkpoint.transformer_config.scales  # the interpreter is slow
    assert_alike(*(draw(golden, mode, [SMOOTH, DRAWN], scales) for mode in ("kernel", "twin")))


def test_kernels_draw_the_last_scale_and_its_pixels_too(kernels: str) -> None:
    golden = ImageCase(GOLDEN / "plain", kernels)
    scales = golden.checkpoint.transformer_config.scales
    found, expected = (draw(golden, mode, [SMOOTH], scales) for mode in ("kernel", "twin"))
    assert_alike(found, expected)
    with torch.inference_mode(), choose.using("kernel"):
        pixels = golden.tokenizer.decode(found[1])
    with torch.inference_mode(), choose.using("twin"):
        assert (pixels - golden.tokenizer.decode(expected[1])).abs().max() < 2e-3


def test_nucleus_sampling_takes_the_twin(kernels: str) -> None:
    golden = ImageCase(GOLDEN / "plain", kernels)
    settings = [SamplingParams(4.0, True, 0.5), DRAWN]
    assert_alike(*(draw(golden, mode, settings, 1) for mode in ("kernel", "twin")))
