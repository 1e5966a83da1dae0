"""A convolution's bias, and the skip connection after it, for maps whose channels are last in memory.

cuDNN adds a bias to such maps in a pass of its own, with 2-byte loads; here the skip connection needs that pass anyway.
"""

import torch
from torch import Tensor

from kernels.choose import kernel_runs
from kernels.launch import kernel, tl

BLOCK = 2048


def bias_add(x: Tensor, bias: Tensor, skip: Tensor | None = None) -> Tensor:
    """x (B, C, H, W) plus bias (C,), then plus skip of x's shape, each sum rounded to x's dtype.

    The kernel's result has its channels last in memory, whatever x has.
    """
    if kernel_runs(x, bias, *(() if skip is None else (skip,))):
        return _launch(x, bias, skip)
    return twin(x, bias, skip)


def twin(x: Tensor, bias: Tensor, skip: Tensor | None = None) -> Tensor:
    """The same in plain torch."""
    x = x + bias[:, None, None]
    return x if skip is None else skip + x


def _launch(x: Tensor, bias: Tensor, skip: Tensor | None) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x)  # in x's memory format
    other = x if skip is None else skip.contiguous(memory_format=torch.channels_last)
    grid = (-(-x.numel() // BLOCK),)
    _bias_add_kernel[grid](x, bias, other, out, x.numel(), x.shape[1], skip is not None, BLOCK, num_warps=8)
    return out


@kernel()
def _bias_add_kernel(x, bias, skip, out, count, width: tl.constexpr, SKIPS: tl.constexpr, BLOCK: tl.constexpr):
    dtype = out.dtype.element_ty
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + at % width, mask=inside, other=0.0).to(tl.float32)
    if SKIPS:
        value = value.to(dtype).to(tl.float32) + tl.load(skip + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, value.to(dtype), mask=inside)
