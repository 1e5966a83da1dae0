"""GroupNorm with SiLU, channels last, against float64."""

import pytest
import torch
import torch.nn.functional as F

from kernels.group_norm import group_norm, twin
from tests.kernels.close import DTYPES, assert_close, random

EPS = 1e-6


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "groups"), [((1, 8, 1, 2), 4), ((2, 20, 5, 7), 4), ((1, 40, 33, 35), 8)])
def test_group_norm(
    kernels: str, shape: tuple[int, int, int, int], groups: int, dtype: torch.dtype, silu: bool
) -> None:
    x = random(*shape, dtype=dtype, device=kernels) * 2 + 1
    weight, bias = (random(shape[1], dtype=dtype, device=kernels, seed=i) for i in (1, 2))
    found = group_norm(x, groups, weight, bias, EPS, silu)
    exact = F.group_norm(x.double(), groups, weight.double(), bias.double(), EPS)
    assert_close(found, F.silu(exact) if silu else exact, 12 if dtype == torch.float32 else 1.25)
    assert found.is_contiguous(memory_format=torch.channels_last)
    if dtype == torch.float32:  # in half precision torch's own is further from float64 on a CPU: 3.5 steps
        assert_close(found, twin(x, groups, weight, bias, EPS, silu).double(), 12)


def test_a_large_mean_does_not_cancel_a_small_variance(kernels: str) -> None:
    x = random(1, 8, 16, 16, dtype=torch.float32, device=kernels) * 0.01 + 100
    ones = torch.ones(8, device=kernels)
    found = group_norm(x, 2, ones, 0 * ones, EPS, False)
    exact = F.group_norm(x.double(), 2, ones.double(), 0 * ones.double(), EPS)
    assert_close(found, exact, 2**13)  # the rounding of x, 2^-17, is 2^-11 of its deviation


def test_channels_that_are_last_already_give_the_same(kernels: str) -> None:
    x = random(2, 20, 5, 7, dtype=torch.float32, device=kernels)
    ones = torch.ones(20, device=kernels)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(group_norm(x, 4, ones, ones, EPS, True), group_norm(last, 4, ones, ones, EPS, True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bias_that_is_added_before_counts_in_mean_and_variance(kernels: str, dtype: torch.dtype) -> None:
    x = random(2, 20, 5, 7, dtype=dtype, device=kernels)
    weight, bias, added = (random(20, dtype=dtype, device=kernels, seed=i) * 3 for i in (1, 2, 3))
    found = group_norm(x, 4, weight, bias, EPS, True, added)
    biased = (x + added[:, None, None]).double()  # rounded, as the convolution would
    exact = F.silu(F.group_norm(biased, 4, weight.double(), bias.double(), EPS))
    assert_close(found, exact, 12 if dtype == torch.float32 else 3)
