"""GroupNorm, with SiLU after it or without, of maps whose channels are last in memory (docs/spec.md, section 5).

Wu, He: Group normalization (arXiv 1803.08494). Three kernels: sums of stretches of positions per channel, from which
each group's mean and variance follow, then every element once. Sums are of differences to the map's first position, so
that a large mean does not cancel a small variance.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.choose import kernel_runs
from kernels.launch import kernel, power_of_2, tl

STRETCHES = 1056
"""About so many programs sum one image: eight for each of an H100's 132 multiprocessors."""
MIN_STRETCH = 32
TILE = 4096
BLOCK = 2048
SUMS_AT_ONCE = 64


def group_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, added: Tensor | None = None
) -> Tensor:
    """x (B, C, H, W), weight and bias (C,): F.group_norm, then F.silu if wanted, each rounded to x's dtype.

    `added` (C,), the bias of the convolution before, is added to x first. The kernel's result has its channels last in
    memory, whatever x has.
    """
    if kernel_runs(x, weight, bias, *(() if added is None else (added,))):
        return _launch(x, groups, weight, bias, eps, silu, added)
    return twin(x, groups, weight, bias, eps, silu, added)


def twin(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, added: Tensor | None = None
) -> Tensor:
    """The same in plain torch."""
    if added is not None:
        x = x + added[:, None, None]
    normed = F.group_norm(x, groups, weight, bias, eps)
    return F.silu(normed) if silu else normed


def _launch(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, added: Tensor | None
) -> Tensor:
    adds, added = added is not None, weight if added is None else added
    x = x.contiguous(memory_format=torch.channels_last)
    images, width, height, breadth = x.shape
    positions = height * breadth
    stretch = max(MIN_STRETCH, -(-positions // STRETCHES))
    stretches = -(-positions // stretch)
    block = power_of_2(width)
    sums = torch.empty(images, stretches, 2, width, dtype=torch.float32, device=x.device)
    rows = max(1, TILE // block)
    _sum_kernel[(images, stretches)](
        x, added, sums, positions, stretch, stretches, width, block, rows, adds, num_warps=8
    )
    lines = torch.empty(images, 2, width, dtype=torch.float32, device=x.device)
    channels = width // groups
    _line_kernel[(images, groups)](
        x, added, sums, weight, bias, lines, positions, eps, stretches, width, channels, power_of_2(channels),
        SUMS_AT_ONCE, adds,
    )  # fmt: skip
    out = torch.empty_like(x)  # in x's memory format
    size = positions * width
    _apply_kernel[(-(-size // BLOCK), images)](x, added, lines, out, size, width, silu, BLOCK, adds, num_warps=8)
    return out


@kernel("positions")
def _sum_kernel(
    x,
    added,
    sums,
    positions,
    STRETCH: tl.constexpr,
    STRETCHES: tl.constexpr,
    width: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    ADDS: tl.constexpr,
):
    dtype = x.dtype.element_ty
    image = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    c = tl.arange(0, BLOCK)
    inside = c < width
    base = x + image * positions * width
    origin = tl.load(base + c, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        plus = tl.load(added + c, mask=inside, other=0.0).to(tl.float32)
        origin = (origin + plus).to(dtype).to(tl.float32)
    first = part * STRETCH
    end = tl.minimum(first + STRETCH, positions)
    # Added up over rows at the end alone: a sum across threads in the loop would wait for each load.
    total = tl.zeros([ROWS, BLOCK], dtype=tl.float32)
    squares = tl.zeros([ROWS, BLOCK], dtype=tl.float32)
    for begin in range(0, STRETCH, ROWS):
        row = first + begin + tl.arange(0, ROWS)
        mask = (row < end)[:, None] & inside[None, :]
        value = tl.load(base + row.to(tl.int64)[:, None] * width + c[None, :], mask=mask, other=0.0).to(tl.float32)
        if ADDS:
            value = (value + plus[None, :]).to(dtype).to(tl.float32)
        value = tl.where(mask, value - origin[None, :], 0.0)
        total += value
        squares += value * value
    target = sums + (image * STRETCHES + part) * 2 * width + c
    tl.store(target, tl.sum(total, 0), mask=inside)
    tl.store(target + width, tl.sum(squares, 0), mask=inside)


@kernel("positions")
def _line_kernel(
    x,
    added,
    sums,
    weight,
    bias,
    lines,
    positions,
    eps,
    STRETCHES: tl.constexpr,
    width: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    ADDS: tl.constexpr,
):
    """Each channel's slope and offset: normalising is then one multiplication and one addition."""
    image = tl.program_id(0).to(tl.int64)
    own = tl.arange(0, BLOCK)
    inside = own < CHANNELS
    c = tl.program_id(1) * CHANNELS + own
    total = tl.zeros([ROWS, BLOCK], dtype=tl.float32)
    squares = tl.zeros([ROWS, BLOCK], dtype=tl.float32)
    for begin in range(0, STRETCHES, ROWS):
        row = begin + tl.arange(0, ROWS)
        mask = (row < STRETCHES)[:, None] & inside[None, :]
        at = sums + (image * STRETCHES + row)[:, None] * 2 * width + c[None, :]
        total += tl.load(at, mask=mask, other=0.0)
        squares += tl.load(at + width, mask=mask, other=0.0)
    origin = tl.load(x + image * positions * width + c, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        origin += tl.load(added + c, mask=inside, other=0.0).to(tl.float32)
        origin = origin.to(x.dtype.element_ty).to(tl.float32)
    shifted = tl.sum(total, 0) / positions
    mean = origin + shifted
    spread = tl.sum(squares, 0) / positions - shifted * shifted  # of the channel about its own mean
    centre = tl.sum(tl.where(inside, mean, 0.0), 0) / CHANNELS
    apart = tl.where(inside, mean - centre, 0.0)
    variance = tl.sum(tl.where(inside, spread, 0.0) + apart * apart, 0) / CHANNELS
    slope = tl.rsqrt(variance + eps) * tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    offset = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32) - centre * slope
    target = lines + image * 2 * width + c
    tl.store(target, slope, mask=inside)
    tl.store(target + width, offset, mask=inside)


@kernel()
def _apply_kernel(
    x, added, lines, out, size, width: tl.constexpr, SILU: tl.constexpr, BLOCK: tl.constexpr, ADDS: tl.constexpr
):
    image = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    c = at % width
    value = tl.load(x + image * size + at, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        plus = tl.load(added + c, mask=inside, other=0.0).to(tl.float32)
        value = (value + plus).to(x.dtype.element_ty).to(tl.float32)
    line = lines + image * 2 * width + c
    normed = value * tl.load(line, mask=inside, other=0.0) + tl.load(line + width, mask=inside, other=0.0)
    if SILU:
        normed = normed.to(out.dtype.element_ty).to(tl.float32)
        normed = normed / (1 + tl.exp(-normed))
    tl.store(out + image * size + at, normed.to(out.dtype.element_ty), mask=inside)
