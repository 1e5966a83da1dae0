"""RMSNorm with the residual that comes before it and the modulation that comes after it (docs/spec.md, section 2).

Zhang, Sennrich: Root mean square layer normalization (arXiv 1910.07467).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.choose import kernel_runs
from kernels.launch import kernel, power_of_2, rows_of, tl

Modulation = tuple[Tensor, Tensor]
"""Scale and bias, (rows, 1, C) each: the norm's result is multiplied by 1 + scale, then bias is added."""


def rms_norm(x: Tensor, weight: Tensor, eps: float, modulation: Modulation | None = None) -> Tensor:
    """x (rows, L, C), or (..., C) without a modulation, weight (C,) to the same shape.

    x·rsqrt(mean(x²) + eps) in float32, rounded to x's dtype, times the weight, modulated.
    """
    if kernel_runs(x, weight, *(modulation or ())):
        return _launch(x, None, None, weight, eps, modulation)[1]
    return _norm(x, weight, eps, modulation)


def add_rms_norm(
    x: Tensor, update: Tensor, gain: Tensor | None, weight: Tensor, eps: float, modulation: Modulation | None = None
) -> tuple[Tensor, Tensor]:
    """The sum x + update, or x + gain·update with gain (rows, 1, C), and its norm as above."""
    if kernel_runs(x, update, weight, *(() if gain is None else (gain,)), *(modulation or ())):
        return _launch(x, update, gain, weight, eps, modulation)
    return twin(x, update, gain, weight, eps, modulation)


def twin(
    x: Tensor, update: Tensor, gain: Tensor | None, weight: Tensor, eps: float, modulation: Modulation | None = None
) -> tuple[Tensor, Tensor]:
    """The same in plain torch."""
    x = x + (update if gain is None else gain * update)
    return x, _norm(x, weight, eps, modulation)


def _norm(x: Tensor, weight: Tensor, eps: float, modulation: Modulation | None) -> Tensor:
    normed = F.rms_norm(x, x.shape[-1:], eps=eps) * weight  # computes in float32 by itself and rounds once
    if modulation is None:
        return normed
    scale, bias = modulation
    return normed * (1 + scale) + bias


def _launch(
    x: Tensor, update: Tensor | None, gain: Tensor | None, weight: Tensor, eps: float, modulation: Modulation | None
) -> tuple[Tensor, Tensor]:
    x, width = x.contiguous(), x.shape[-1]
    rows = x.shape[0] if x.ndim == 3 else 1
    length = x.numel() // (rows * width)
    summed = x if update is None else torch.empty_like(x)
    out = torch.empty_like(x)
    scale, bias = modulation or (weight, weight)
    _rms_norm_kernel[(rows * length,)](
        x,
        x if update is None else update.contiguous(),
        x if gain is None else gain,
        weight,
        scale,
        bias,
        summed,
        out,
        length,
        0 if gain is None else _row_stride(gain),
        0 if modulation is None else _row_stride(scale),
        0 if modulation is None else _row_stride(bias),
        eps,
        width,
        power_of_2(width),
        update is not None,
        gain is not None,
        modulation is not None,
        num_warps=4 if width <= 2048 else 8,
        enable_fp_fusion=False,
    )
    return summed, out


def _row_stride(per_row: Tensor) -> int:
    rows_of(per_row)  # the last axis must be dense
    return 0 if per_row.shape[0] == 1 else per_row.stride(0)


@kernel("length")
def _rms_norm_kernel(
    x,
    update,
    gain,
    weight,
    scale,
    bias,
    summed,
    out,
    length,
    gain_stride,
    scale_stride,
    bias_stride,
    eps,
    width: tl.constexpr,
    BLOCK: tl.constexpr,
    ADDS: tl.constexpr,
    GAINS: tl.constexpr,
    MODULATED: tl.constexpr,
):
    dtype = out.dtype.element_ty
    token = tl.program_id(0).to(tl.int64)
    row = token // length
    c = tl.arange(0, BLOCK)
    inside = c < width
    at = token * width + c
    h = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        added = tl.load(update + at, mask=inside, other=0.0).to(tl.float32)
        if GAINS:
            g = tl.load(gain + row * gain_stride + c, mask=inside, other=0.0).to(tl.float32)
            added = (g * added).to(dtype).to(tl.float32)
        h = (h + added).to(dtype).to(tl.float32)
        tl.store(summed + at, h.to(dtype), mask=inside)
    normed = (h * tl.rsqrt(tl.sum(h * h, 0) / width + eps)).to(dtype).to(tl.float32)
    w = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    normed = (normed * w).to(dtype).to(tl.float32)
    if MODULATED:
        s = tl.load(scale + row * scale_stride + c, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(bias + row * bias_stride + c, mask=inside, other=0.0).to(tl.float32)
        s = (1 + s).to(dtype).to(tl.float32)
        normed = (normed * s).to(dtype).to(tl.float32) + b
    tl.store(out + at, normed.to(dtype), mask=inside)
