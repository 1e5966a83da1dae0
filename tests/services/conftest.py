"""What the tests of all stages share."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tiny tensors, and neighbours on the machine


@pytest.fixture(scope="session")
def folder(tiny_checkpoint: object) -> str:
    """The tiny checkpoint as a setting."""
    return str(tiny_checkpoint)
