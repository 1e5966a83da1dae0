"""The versions that a picture's recipe names."""

import torch

from common.version import VERSION


def versions() -> dict[str, str]:
    """By name."""
    return {"hart": VERSION, "torch": torch.__version__.partition("+")[0]}
