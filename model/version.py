"""The versions that a picture's recipe names."""

import torch

VERSION = "0.1.0"


def versions() -> dict[str, str]:
    """By name."""
    return {"hart": VERSION, "torch": torch.__version__.partition("+")[0]}
