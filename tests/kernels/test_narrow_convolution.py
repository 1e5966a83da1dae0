"""A convolution to a few channels against float64."""

import pytest
import torch
import torch.nn.functional as F

from kernels.narrow_convolution import narrow_convolution, twin
from tests.kernels.close import DTYPES, assert_close, random


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "channels"), [((1, 8, 1, 1), 3), ((2, 20, 5, 7), 3), ((1, 16, 33, 35), 1)])
@pytest.mark.parametrize("last", [False, True])
def test_narrow_convolution(
    kernels: str, shape: tuple[int, int, int, int], channels: int, dtype: torch.dtype, last: bool
) -> None:
    x = random(*shape, dtype=dtype, device=kernels)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    weight = random(channels, shape[1], 3, 3, dtype=dtype, device=kernels) * 0.2
    bias = random(channels, dtype=dtype, device=kernels)
    found = narrow_convolution(x, weight, bias)
    assert_close(
        found, F.conv2d(x.double(), weight.double(), bias.double(), padding=1), 24 if dtype == torch.float32 else 1.25
    )


def test_more_channels_are_the_librarys(kernels: str) -> None:
    x, weight = random(1, 4, 5, 5, dtype=torch.float32, device=kernels), torch.ones(9, 4, 3, 3, device=kernels)
    bias = torch.ones(9, device=kernels)
    assert torch.equal(narrow_convolution(x, weight, bias), twin(x, weight, bias))
