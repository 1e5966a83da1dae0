"""silu(gate)·up against float64."""

import pytest
import torch
import torch.nn.functional as F

from kernels.silu_mul import silu_mul, twin
from tests.kernels.close import DTYPES, assert_close, assert_mostly_equal, random


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 37), (2, 5, 513)])
def test_silu_mul(kernels: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    gate, up = (random(*shape, dtype=dtype, device=kernels, seed=i) * 3 for i in (1, 2))
    found = silu_mul(gate, up)
    assert_close(found, F.silu(gate.double()) * up.double(), 2.5 if dtype == torch.float32 else 1.25)
    if dtype != torch.float32:  # whose last place depends on the exponential function
        assert_mostly_equal(found, twin(gate, up), 0.02)  # rounded where the twin rounds


def test_large_values_do_not_overflow(kernels: str) -> None:
    gate = torch.tensor([[-1e4, -200.0, 0.0, 200.0, 1e4]], device=kernels)
    assert silu_mul(gate, torch.ones_like(gate)).tolist() == [[0.0, 0.0, 0.0, 200.0, 1e4]]


@pytest.mark.parametrize("shape", [(1, 3), (2, 3, 37)])
def test_halves_of_one_tensor_are_taken_as_they_lie(kernels: str, shape: tuple[int, ...]) -> None:
    both = random(*shape[:-1], 2 * shape[-1], dtype=torch.float32, device=kernels)
    gate, up = both.chunk(2, dim=-1)
    assert torch.equal(silu_mul(gate, up), silu_mul(gate.contiguous(), up.contiguous()))
    transposed = both.transpose(0, -1)
    assert torch.equal(silu_mul(transposed, transposed), silu_mul(transposed.contiguous(), transposed.contiguous()))
