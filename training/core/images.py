"""Images as tensors, and PSNR between two. Imports no networks."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.core.device import to_device

CPU = torch.device("cpu")
PIXELS = 16
"""Pixels along one side of a latent position, as released."""

FULL_BATCH_SIDE = 256
"""Batches keep their size up to this side in pixels; beyond, they shrink with the area."""


def to_signed(pixels: NDArray[np.uint8], device: torch.device = CPU) -> Tensor:
    """uint8 (B, S, S, 3) to float (B, 3, S, S) in [-1, 1] on `device`; bytes are what is transferred."""
    given = to_device(torch.from_numpy(np.array(pixels, order="C")), device)
    return given.permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1


def to_bytes(images: Tensor) -> NDArray[np.uint8]:
    """(B, 3, S, S) in [0, 1] to uint8 (B, S, S, 3), by floor(255·x)."""
    return (images.detach().cpu().clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy()


def batch_size(max_batch: int, side: int) -> int:
    """Images of `side` pixels in one pass: `max_batch` up to 256 pixels, fewer by their area beyond; at least 1."""
    return max(1, max_batch * FULL_BATCH_SIDE**2 // max(side, FULL_BATCH_SIDE) ** 2)


def sample_size(count: int, side: int) -> int:
    """Images of `side` pixels to measure on: `count` up to 256 pixels, a quarter of it beyond; at least 1."""
    return count if side <= FULL_BATCH_SIDE else max(1, count // 4)


def psnr(drawn: Tensor, truth: Tensor) -> Tensor:
    """Images (B, 3, S, S) in [0, 1] to decibels (B,)."""
    return -10 * (drawn - truth).square().mean(dim=(1, 2, 3)).clamp(min=1e-10).log10()
