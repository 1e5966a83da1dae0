"""A 3x3 convolution to a few channels, such as a decoder's last one to red, green and blue.

cuDNN leaves such a convolution to a kernel without matrix units. Here one matrix product makes what each position gives
to each of its nine neighbours, channels first, and a kernel adds up what every position gets.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.choose import kernel_runs
from kernels.launch import kernel, tl

MAX_CHANNELS = 8
TAPS = 9
BLOCK = 512


def narrow_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (B, C, H, W), weight (Z, C, 3, 3), bias (Z,) to (B, Z, H, W): F.conv2d with a padding of 1."""
    if kernel_runs(x, weight, bias) and len(weight) <= MAX_CHANNELS:
        return _launch(x, weight, bias)
    return twin(x, weight, bias)


def twin(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same in plain torch."""
    return F.conv2d(x, weight, bias, padding=1)


def _launch(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    images, width, height, breadth = x.shape
    channels = len(weight)
    positions = x.permute(0, 2, 3, 1).reshape(-1, width)  # a view where channels are last in memory
    taps = F.pad(weight.permute(0, 2, 3, 1).reshape(-1, width), (0, 0, 0, -channels * TAPS % 8))
    if x.is_cuda and x.dtype != torch.float32:
        given = torch.mm(taps, positions.t(), out_dtype=torch.float32)
    else:
        given = taps.float() @ positions.float().t()
    out = torch.empty(images, channels, height, breadth, dtype=x.dtype, device=x.device)
    area = height * breadth
    _narrow_convolution_kernel[(-(-area // BLOCK), images * channels)](
        given, bias, out, height, breadth, area, len(positions), channels, TAPS, BLOCK, num_warps=4
    )
    return out


@kernel()
def _narrow_convolution_kernel(
    given, bias, out, height, breadth, area, count, channels: tl.constexpr, TAPS: tl.constexpr, BLOCK: tl.constexpr
):
    image = (tl.program_id(1) // channels).to(tl.int64)
    channel = tl.program_id(1) % channels
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, x = at // breadth, at % breadth
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for tap in tl.static_range(TAPS):
        row, column = y + tap // 3 - 1, x + tap % 3 - 1
        inside = (at < area) & (row >= 0) & (row < height) & (column >= 0) & (column < breadth)
        source = given + (channel * TAPS + tap).to(tl.int64) * count + image * area + row * breadth + column
        total += tl.load(source, mask=inside, other=0.0)
    total += tl.load(bias + channel).to(tl.float32)
    tl.store(out + (image * channels + channel) * area + at, total.to(out.dtype.element_ty), mask=at < area)
