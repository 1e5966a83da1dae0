"""Decoded images to 8-bit pixels, on the device: a quarter of the bytes then leaves it."""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from model.errors import NotFiniteError

Pixels = npt.NDArray[np.uint8]


def quantize(images: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) in [0, 1] to 8-bit values (B, H, W, 3), floor(255·x), and which images are finite, (B,)."""
    return (images * 255).byte().permute(0, 2, 3, 1).contiguous(), images.isfinite().flatten(1).all(1)


def to_pixels(values: Tensor, finite: Tensor) -> "list[Pixels | NotFiniteError]":
    """What `quantize` returned to arrays (H, W, 3) in the host's memory; NotFiniteError in place of other images."""
    found: list[Any] = list(values.cpu().numpy())
    return [one if good else NotFiniteError("the image") for one, good in zip(found, finite.tolist(), strict=True)]
