"""Fixtures of the model's tests: one torch thread, a golden case, a tiny checkpoint."""

from pathlib import Path

import pytest
import torch

from model.generation import Generator
from tests.model.golden import ImageCase
from tests.model.single_images import CHOICES, SLOTS, begin

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def plain() -> ImageCase:
    """The repository's golden case `plain`."""
    return ImageCase(Path(__file__).parent.parent / "golden" / "plain")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint of golden size."""
    from benchmarks.harness.checkpoint import build

    return build(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(params=["plain", "adaln"])
def golden(request: pytest.FixtureRequest, device: str) -> ImageCase:
    return ImageCase(Path(__file__).parent.parent / "golden" / request.param, device)


@pytest.fixture(scope="module")
def generator(plain: ImageCase) -> Generator:
    return plain.generator(slots=SLOTS)


@pytest.fixture(scope="module")
def alone(generator: Generator, plain: ImageCase) -> list[tuple[list[torch.Tensor], torch.Tensor]]:
    """Each choice's tokens by scale and its latent, generated alone."""
    drawn = []
    for choice in range(len(CHOICES)):
        state = begin(generator, plain, choice)
        tokens: list[torch.Tensor] = []
        for _ in range(generator.scales):
            generator.advance([state])
            assert state.tokens is not None
            tokens.append(state.tokens)
        generator.release(state)
        drawn.append((tokens, state.latent))
    return drawn
