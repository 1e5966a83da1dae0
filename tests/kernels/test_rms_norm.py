"""RMSNorm with residual and modulation against float64."""

import pytest
import torch
from torch import Tensor

from kernels.rms_norm import Modulation, add_rms_norm, rms_norm, twin
from tests.kernels.close import DTYPES, assert_close, assert_mostly_equal, random

EPS = 1e-6
SHAPES = [(1, 1, 16), (3, 5, 40), (2, 7, 96)]


def exact(x: Tensor, weight: Tensor, modulation: Modulation | None) -> Tensor:
    x = x.double()
    normed = x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt() * weight.double()
    if modulation is None:
        return normed
    scale, bias = (part.double() for part in modulation)
    return normed * (1 + scale) + bias


def inputs(shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Modulation]:
    rows, _, width = shape
    both = random(rows, 1, 2 * width, dtype=dtype, device=device, seed=3)
    scale, bias = both.chunk(2, dim=2)  # parts of a wider tensor, as the model has them
    return random(*shape, dtype=dtype, device=device), random(width, dtype=dtype, device=device), (scale, bias)


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm(kernels: str, shape: tuple[int, int, int], dtype: torch.dtype, modulated: bool) -> None:
    x, weight, modulation = inputs(shape, dtype, kernels)
    chosen = modulation if modulated else None
    assert_close(rms_norm(x * 5, weight, EPS, chosen), exact(x * 5, weight, chosen), 4 if modulated else 2)


@pytest.mark.parametrize("gained", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_add_rms_norm(kernels: str, shape: tuple[int, int, int], dtype: torch.dtype, gained: bool) -> None:
    x, weight, modulation = inputs(shape, dtype, kernels)
    update = random(*shape, dtype=dtype, device=kernels, seed=5)
    gain = random(shape[0], 6, shape[2], dtype=dtype, device=kernels, seed=6)[:, 2:3] if gained else None
    summed, normed = add_rms_norm(x, update, gain, weight, EPS, modulation)
    assert_close(summed, x.double() + (update if gain is None else gain.double() * update).double(), 1)
    assert_close(normed, exact(summed, weight, modulation), 4)
    expected = twin(x, update, gain, weight, EPS, modulation)
    assert_mostly_equal(summed, expected[0], 0)
    if dtype != torch.float32:  # whose last place depends on the order of the mean's summation
        assert_mostly_equal(normed, expected[1], 0.05)


def test_one_modulation_serves_all_rows(kernels: str) -> None:
    x, weight, (scale, bias) = inputs((3, 5, 40), torch.float32, kernels)
    one = (scale[:1], bias[:1])
    assert_close(rms_norm(x, weight, EPS, one), exact(x, weight, one), 4)
