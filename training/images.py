"""Pictures as tensors, and how alike two are. Knows nothing of models."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_signed(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, S, S, 3) to float (B, 3, S, S) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1


def to_bytes(pictures: Tensor) -> NDArray[np.uint8]:
    """(B, 3, S, S) in [0, 1] to uint8 (B, S, S, 3), by floor(255·x)."""
    return (pictures.detach().cpu().clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy()


def psnr(drawn: Tensor, truth: Tensor) -> Tensor:
    """Pictures (B, 3, S, S) in [0, 1] to decibels (B,)."""
    return -10 * (drawn - truth).square().mean(dim=(1, 2, 3)).clamp(min=1e-10).log10()
