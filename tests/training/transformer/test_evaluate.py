"""training.transformer.evaluate: teacher-forced figures, and one set of tokens under several residual temperatures."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from model.errors import SettingError
from model.generation import Generator
from model.noise import SeededNoise
from model.params import SamplingParams
from model.text import TextEncoder
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.transformer.evaluate import draw_with_temperatures, teacher_forced_figures
from training.transformer.sampling import draw

TEXT = Path(__file__).parents[2] / "golden" / "text_right" / "checkpoint"
PROMPTS = ["a red heart", "a cat", "a tree"]


@pytest.fixture
def encoder() -> TextEncoder:
    return TextEncoder.load(TEXT, 5)


@pytest.fixture
def network(transformer: Transformer, encoder: TextEncoder) -> Transformer:
    torch.manual_seed(0)
    config = dataclasses.replace(transformer.config, context_dim=encoder.width)
    return Transformer(config, 32, 8).eval().requires_grad_(False)


def test_true_residuals_give_the_continuous_images_and_a_fresh_head_a_noisy_one(
    network: Transformer, tokenizer: HybridTokenizer, encoder: TextEncoder
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    figures = teacher_forced_figures(network, tokenizer, encoder, pixels, PROMPTS)
    assert figures["images"] == 3
    assert 0 <= figures["token_accuracy"] < 0.5
    assert figures["error_0"] > 0
    assert len({figures[name] for name in ("psnr_discrete", "psnr_true", "psnr_drawn_1", "psnr_drawn_0")}) == 4


def test_temperature_one_is_generation_and_no_residual_is_the_discrete_latent(
    network: Transformer, tokenizer: HybridTokenizer, encoder: TextEncoder
) -> None:
    settings = SamplingParams(guidance=2, more_smooth=False, top_p=0.5)
    generator = Generator(network, tokenizer.quantize, slots=2)  # two batches
    head = network.diffloss
    released, cool, none = draw_with_temperatures(generator, tokenizer, encoder, PROMPTS, settings, (1.0, 0.0, None))
    assert network.diffloss is head
    assert len(generator.free) == 2
    np.testing.assert_array_equal(released, draw(network, tokenizer, encoder, PROMPTS, settings, max_batch=2))
    assert not np.array_equal(released, cool)
    assert not np.array_equal(cool, none)


def test_images_of_different_temperatures_share_a_batch(
    network: Transformer, tokenizer: HybridTokenizer, encoder: TextEncoder
) -> None:
    conditioning = encoder.encode(["a red heart"]).conditioning[0]

    def latents(temperatures: list[float]) -> list[torch.Tensor]:
        generator = Generator(network, tokenizer.quantize, slots=len(temperatures))
        states = [
            generator.begin(conditioning, SeededNoise(7), SamplingParams(residual_temperature=temperature))
            for temperature in temperatures
        ]
        for _ in range(generator.scales):
            generator.advance(states)
        return [state.latent for state in states]

    together = latents([1.0, 0.5, 0.0])
    assert not torch.equal(together[0], together[1])
    for latent, temperature in zip(together, (1.0, 0.5, 0.0), strict=True):
        torch.testing.assert_close(latent, latents([temperature])[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [-0.1, 1.1, float("nan")])
def test_a_temperature_out_of_range_is_refused(temperature: float) -> None:
    with pytest.raises(SettingError, match="residual_temperature"):
        SamplingParams(residual_temperature=temperature)
