"""The diffusion's gated sum, LayerNorm and modulation against float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.layer_norm import EPS, Affine, layer_norm, twin
from tests.kernels.close import DTYPES, assert_close, assert_mostly_equal, random

SHAPES = [(1, 1, 1, 16), (2, 2, 3, 40), (3, 2, 5, 96)]


def exact(x: Tensor, affine: Affine | None, shift: Tensor, scale: Tensor) -> Tensor:
    weight, bias = (None, None) if affine is None else (part.double() for part in affine)
    normed = F.layer_norm(x.double(), x.shape[-1:], weight, bias, EPS)
    return shift.double() + normed * (1 + scale.double())


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm(
    kernels: str, shape: tuple[int, int, int, int], dtype: torch.dtype, gated: bool, affine: bool
) -> None:
    n, branches, length, width = shape
    modulation = random(n, branches, length, 3 * width, dtype=dtype, device=kernels)
    shift, scale, gate = modulation.chunk(3, dim=-1)
    x = random(n, branches if gated else 1, length, width, dtype=dtype, device=kernels) + 2
    lines = (random(width, dtype=dtype, device=kernels), random(width, dtype=dtype, device=kernels, seed=9))
    chosen = lines if affine else None
    pair = (gate, random(*shape, dtype=dtype, device=kernels, seed=4)) if gated else None
    summed, normed = layer_norm(x, pair, chosen, shift, scale)
    if pair is not None:
        assert_close(summed, x.double() + pair[0].double() * pair[1].double(), 2)
    assert_close(normed, exact(summed, chosen, shift, scale), 24 if dtype == torch.float32 else 5)
    expected = twin(x, pair, chosen, shift, scale)
    assert_close(normed, expected[1].double(), 24 if dtype == torch.float32 else 5)
    if dtype != torch.float32:  # where sums in another order seldom change the rounded value
        assert_mostly_equal(normed, expected[1], 0.1)


def test_rows_at_more_than_one_distance_are_refused(kernels: str) -> None:
    shift = random(2, 3, 4, 8, dtype=torch.float32, device=kernels)[:, :2]
    with pytest.raises(ValueError, match="expected rows at one distance"):
        layer_norm(shift, None, None, shift, shift)
