"""Bicubic enlargement by matrices against float64."""

import pytest
import torch
import torch.nn.functional as F

from kernels.bicubic import upsample
from tests.kernels.close import assert_close, random


@pytest.mark.parametrize(("count", "side"), [(1, 4), (2, 8), (3, 8), (5, 7), (48, 64)])
def test_upsample(kernels: str, count: int, side: int) -> None:
    maps = random(2, 3, count, count, dtype=torch.float32, device=kernels)
    exact = F.interpolate(maps.double(), size=(side, side), mode="bicubic", align_corners=False)
    assert_close(upsample(maps, side), exact, 32)  # of the coordinates, which are float32
