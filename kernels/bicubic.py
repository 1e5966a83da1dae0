"""Bicubic enlargement of square maps by two small matrix products (docs/spec.md, section 5).

The filter is separable: rows and columns are each multiplied by a matrix of its coefficients. torch's kernel computes
the channels of a pixel one after another, which leaves a GPU idle at these sizes.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.choose import kernel_runs


def upsample(maps: Tensor, side: int) -> Tensor:
    """(B, Z, n, n) to (B, Z, side, side), float32, as F.interpolate does without aligned corners."""
    if not kernel_runs(maps):
        return twin(maps, side)
    matrix = _matrix(maps.shape[-1], side, maps.device)
    return matrix @ maps @ matrix.t()


def twin(maps: Tensor, side: int) -> Tensor:
    """The same in plain torch."""
    return F.interpolate(maps, size=(side, side), mode="bicubic", align_corners=False)


@cache
def _matrix(count: int, side: int, device: torch.device) -> Tensor:
    """The coefficients (side, count) of one axis: what becomes of unit impulses whose other axis is constant."""
    impulses = torch.eye(count, device=device)[None, :, :, None].expand(1, count, count, count)
    return twin(impulses, side)[0, :, :, 0].t().contiguous()
