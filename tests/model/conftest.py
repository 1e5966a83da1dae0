"""Torch on one thread, and the golden cases within reach."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def plain():  # type: ignore[no-untyped-def]
    """The case `plain` of the repository's own."""
    from golden import PictureCase

    return PictureCase(Path(__file__).parent.parent / "golden" / "plain")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint of golden size."""
    from benchmarks.harness.checkpoint import build

    return build(tmp_path_factory.mktemp("checkpoint"))
