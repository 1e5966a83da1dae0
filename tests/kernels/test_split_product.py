"""The split float32 product against float64, beside what bfloat16 and TF32 would lose."""

import pytest
import torch

from kernels.split_product import split_product, split_weight, twin
from tests.kernels.close import random, truncates


@pytest.mark.parametrize(("rows", "width", "outputs"), [((1,), 8, 16), ((2, 3), 48, 40), ((1, 2, 5), 1536, 64)])
def test_split_product(kernels: str, rows: tuple[int, ...], width: int, outputs: int) -> None:
    x, weight = (random(*shape, width, dtype=torch.float32, device=kernels) for shape in (rows, (outputs,)))
    bias = random(outputs, dtype=torch.float32, device=kernels)
    found = split_product(x, split_weight(weight), bias)
    exact = x.double() @ weight.double().t() + bias.double()
    size = x.double().norm(dim=-1, keepdim=True) * weight.double().norm(dim=-1)
    assert found.dtype == torch.float32
    assert found.shape == (*rows, outputs)
    assert float(((found.double() - exact).abs() / size).max()) < 2**-16  # bfloat16: 2^-9, TF32: 2^-11


def test_the_parts_are_high_low_and_high_again(kernels: str) -> None:
    x = random(3, 37, dtype=torch.float32, device=kernels)
    zero = torch.zeros(37, device=kernels)
    unit = torch.cat([torch.eye(37), torch.zeros(37, 74)], 1).to(kernels)
    high, low, again = (split_product(x, unit.roll(37 * i, 1).bfloat16(), zero) for i in range(3))
    assert torch.equal(high, again)
    assert (high + low - x).abs().max() <= 2**-15 * x.abs().max()
    assert truncates(twin(x)) or torch.equal(torch.cat([high, low, again], -1), twin(x).float())
