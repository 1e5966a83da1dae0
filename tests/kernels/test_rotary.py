"""Biases, rotary embedding and the write into kept keys and values against float64."""

import pytest
import torch
from torch import Tensor

from kernels.rotary import Table, rotate_and_keep, twin
from tests.kernels.close import DTYPES, assert_close, random


def table(rows: int, length: int, size: int, kind: str, device: str) -> Table:
    """By position: an element and its partner turn alike; by row and column: they do not."""
    generator = torch.Generator().manual_seed(rows + length)
    parts = 2 if kind == "context" else 4
    angles = torch.rand(rows, length, size // parts, generator=generator) * 6
    if kind == "context":
        angles = torch.cat([angles, angles], -1)
    else:
        angles = torch.cat([angles, angles, 2 * angles, 2 * angles], -1)
    first, second = angles.sin().unsqueeze(1).chunk(2, dim=-1)
    return angles.cos().unsqueeze(1).to(device), torch.cat([-first, second], -1).to(device)


def exact(qkv: Tensor, biases: tuple[Tensor, Tensor], turn: Table) -> tuple[Tensor, Tensor, Tensor]:
    heads, size = qkv.shape[3:]
    q, k, v = qkv.double().permute(2, 0, 3, 1, 4)
    q_bias, v_bias = (bias.double().view(1, heads, 1, size) for bias in biases)
    cos, sin = (part.double() for part in turn)

    def turned(x: Tensor) -> Tensor:
        return x * cos + x.roll(size // 2, -1) * sin

    return turned(q + q_bias), turned(k), v + v_bias


@pytest.mark.parametrize("kind", ["context", "map"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (3, 5, 3, 12), (4, 2, 2, 24)])
def test_rotary(kernels: str, shape: tuple[int, int, int, int], dtype: torch.dtype, kind: str) -> None:
    rows, length, heads, size = shape
    width, start, slots = heads * size, 3, 6
    qkv = random(rows, length, 3, heads, size, dtype=dtype, device=kernels)
    biases = (random(width, dtype=dtype, device=kernels), random(width, dtype=dtype, device=kernels, seed=1))
    cos, sin = (part.to(dtype) for part in table(rows, length, size, kind, kernels))
    where = torch.tensor([5, 0, 2, 1][:rows], device=kernels)
    kept, again = (
        tuple(torch.full((slots, heads, start + length + 2, size), 7.0, dtype=dtype, device=kernels) for _ in "kv")
        for _ in range(2)
    )
    q = rotate_and_keep(qkv, biases, (cos, sin), kept, where, start)  # type: ignore[arg-type]
    expected = exact(qkv, biases, (cos, sin))
    for found, wanted in zip((q, *(part[where, :, start : start + length] for part in kept)), expected, strict=True):
        assert_close(found, wanted, 2)
    for part in kept:  # nothing else was written
        part[where, :, start : start + length] = 7.0
        assert bool((part == 7.0).all())
    assert_close(q, twin(qkv, biases, (cos, sin), again, where, start).double(), 2)  # type: ignore[arg-type]


def test_one_table_serves_all_rows(kernels: str) -> None:
    qkv = random(3, 5, 3, 2, 8, dtype=torch.float32, device=kernels)
    biases = (random(16, dtype=torch.float32, device=kernels), random(16, dtype=torch.float32, device=kernels, seed=1))
    one = table(1, 5, 8, "map", kernels)
    kept = (torch.zeros(3, 2, 5, 8, device=kernels), torch.zeros(3, 2, 5, 8, device=kernels))
    q = rotate_and_keep(qkv, biases, one, kept, torch.arange(3, device=kernels), 0)
    assert_close(q, exact(qkv, biases, one)[0], 2)
