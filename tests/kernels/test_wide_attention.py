"""Attention with a wide head against float64."""

import pytest
import torch

from kernels.wide_attention import twin, wide_attention
from tests.kernels.close import assert_close, random


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1, 320), (2, 37, 512)])
def test_wide_attention(kernels: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    q, k, v = (random(*shape, dtype=dtype, device=kernels, seed=i) for i in range(3))
    exact = ((q.double() @ k.double().mT) * shape[-1] ** -0.5).softmax(-1) @ v.double()
    assert_close(wide_attention(q, k, v), exact, 2)


def test_narrow_heads_and_float32_are_the_librarys(kernels: str) -> None:
    for width, dtype in ((64, torch.bfloat16), (320, torch.float32)):
        q, k, v = (random(1, 5, width, dtype=dtype, device=kernels, seed=i) for i in range(3))
        assert torch.equal(wide_attention(q, k, v), twin(q, k, v))
