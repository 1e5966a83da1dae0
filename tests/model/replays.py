"""Images drawn eagerly and by replayed steps, compared."""

from __future__ import annotations

import torch
from torch import Tensor

from model.generation import GenerationState, Generator
from model.noise import SeededNoise
from model.params import SamplingParams
from tests.model.golden import ImageCase

SETTINGS = [
    SamplingParams(4.0, True, 0.0),
    SamplingParams(0.5, False, 0.0),
    SamplingParams(9.0, True, 0.0),
    SamplingParams(2.5, False, 0.0),
]


def begin(golden: ImageCase, generator: Generator, picture: int, settings: SamplingParams) -> GenerationState:
    given = golden.conditioning()
    return generator.begin(given[picture % golden.batch], SeededNoise(1000 + picture, golden.device), settings)


def draw(generator: Generator, states: list[GenerationState]) -> list[tuple[Tensor, Tensor]]:
    """Tokens and latents of every scale, and the slots given back."""
    found = []
    while states[0].scale < generator.scales:
        generator.advance(states)
        tokens = torch.stack([state.tokens for state in states if state.tokens is not None])
        found.append((tokens, torch.stack([state.latent for state in states])))
    for state in states:
        generator.release(state)
    return found


def assert_same(found: list[tuple[Tensor, Tensor]], expected: list[tuple[Tensor, Tensor]]) -> None:
    for (tokens, latents), (true_tokens, true_latents) in zip(found, expected, strict=True):
        assert torch.equal(tokens, true_tokens)
        assert torch.equal(latents, true_latents)
