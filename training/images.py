"""Pictures as tensors, and how alike two are. Knows nothing of models."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.device import sent

CPU = torch.device("cpu")

WHOLE = 256
"""Up to this side everything is done as on small pictures; beyond, memory and time grow with the area."""


def to_signed(pixels: NDArray[np.uint8], device: torch.device = CPU) -> Tensor:
    """uint8 (B, S, S, 3) to float (B, 3, S, S) in [-1, 1], on `device`: what travels there are the bytes."""
    given = sent(torch.from_numpy(np.array(pixels, order="C")), device)
    return given.permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1


def to_bytes(pictures: Tensor) -> NDArray[np.uint8]:
    """(B, 3, S, S) in [0, 1] to uint8 (B, S, S, 3), by floor(255·x)."""
    return (pictures.detach().cpu().clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy()


def at_once(most: int, side: int) -> int:
    """How many pictures of `side` pixels pass through a network at once: `most` up to 256, by their area beyond."""
    return max(1, most * WHOLE**2 // max(side, WHOLE) ** 2)


def looked_at(most: int, side: int) -> int:
    """How many pictures of `side` pixels are measured: `most` up to 256 pixels, a quarter of them beyond."""
    return most if side <= WHOLE else max(1, most // 4)


def psnr(drawn: Tensor, truth: Tensor) -> Tensor:
    """Pictures (B, 3, S, S) in [0, 1] to decibels (B,)."""
    return -10 * (drawn - truth).square().mean(dim=(1, 2, 3)).clamp(min=1e-10).log10()
