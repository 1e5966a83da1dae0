"""Requests of unlike settings, and each drawn alone."""

from model.generation import GenerationState, Generator
from model.noise import SeededNoise
from model.params import SamplingParams
from tests.model.golden import ImageCase

SLOTS = 4


CHOICES = [
    (11, SamplingParams(0.0, True, 0.0)),
    (12, SamplingParams(4.5, True, 0.0)),
    (2**64 - 1, SamplingParams(4.5, False, 0.0)),
    (14, SamplingParams(20.0, False, 0.3)),
    (15, SamplingParams(2.0, True, 0.9)),
]


def begin(generator: Generator, plain: ImageCase, choice: int) -> GenerationState:
    seed, chosen = CHOICES[choice]
    return generator.begin(plain.conditioning()[choice % plain.batch], SeededNoise(seed), chosen)
