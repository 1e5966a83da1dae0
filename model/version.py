"""The software versions in an image's recipe."""

import torch

from common.version import VERSION


def versions() -> dict[str, str]:
    """Package name to version."""
    return {"hart": VERSION, "torch": torch.__version__.partition("+")[0]}
