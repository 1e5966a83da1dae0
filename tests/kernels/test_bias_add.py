"""A convolution's bias and skip connection against float64."""

import pytest
import torch

from kernels.bias_add import bias_add, twin
from tests.kernels.close import DTYPES, assert_close, assert_mostly_equal, random


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 20, 5, 7), (1, 40, 9, 11)])
def test_bias_add(kernels: str, shape: tuple[int, int, int, int], dtype: torch.dtype, skips: bool) -> None:
    x, bias = (random(*one, dtype=dtype, device=kernels) for one in (shape, (shape[1],)))
    skip = random(*shape, dtype=dtype, device=kernels, seed=5) if skips else None
    found = bias_add(x, bias, skip)
    exact = x.double() + bias.double()[:, None, None]
    assert_close(found, exact if skip is None else exact + skip.double(), 2)
    assert_mostly_equal(found, twin(x, bias, skip), 0)
    assert found.is_contiguous(memory_format=torch.channels_last)
