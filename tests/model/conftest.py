"""Fixtures of the model's tests: one torch thread, a golden case, a tiny checkpoint."""

from pathlib import Path

import pytest
import torch

from tests.model.golden import ImageCase

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
