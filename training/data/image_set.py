"""Images to train a tokenizer on, with their fixed split."""

import hashlib
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HELD_OUT_ONE_IN = 20


@dataclass(frozen=True)
class ImageSet:
    """n images on white, their opacity, and the split as index arrays."""

    pixels: NDArray[np.uint8]
    """(n, S, S, 3)."""
    alpha: NDArray[np.uint8]
    """(n, S, S)."""
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]


def is_held_out(name: str) -> bool:
    """The fixed split: one in twenty names by their hash."""
    return hashlib.sha256(os.fsencode(name)).digest()[0] % HELD_OUT_ONE_IN == 0
