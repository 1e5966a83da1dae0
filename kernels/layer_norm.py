"""The residual diffusion's gated sum, LayerNorm and modulation (docs/spec.md, section 4)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.choose import kernel_runs
from kernels.launch import kernel, power_of_2, rows_of, tl

Affine = tuple[Tensor, Tensor]
"""Weight and bias of a LayerNorm, (W,) each."""
Gated = tuple[Tensor, Tensor]
"""A gate and what it lets in, (n, branches, L, W) each."""
EPS = 1e-6


def layer_norm(
    x: Tensor, gated: Gated | None, affine: Affine | None, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The sum x + gate·update, and LayerNorm(sum)·(1 + scale) + shift.

    shift and scale (n, branches, L, W); x the same shape or one branch for all, (n, 1, L, W). Without `gated` the sum
    is x itself. The last axis may be a part of a wider one. Tensors of other ranks are the twin's.
    """
    if shift.ndim == 4 and kernel_runs(x, shift, scale, *(gated or ()), *(affine or ())):
        return _launch(x, gated, affine, shift, scale)
    return twin(x, gated, affine, shift, scale)


def twin(x: Tensor, gated: Gated | None, affine: Affine | None, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The same in plain torch."""
    if gated is not None:
        x = torch.addcmul(x, *gated)
    weight, bias = affine or (None, None)
    return x, torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], weight, bias, EPS), 1 + scale)


def _launch(
    x: Tensor, gated: Gated | None, affine: Affine | None, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    n, branches, length, width = shift.shape
    out = torch.empty(shift.shape, dtype=x.dtype, device=x.device)
    summed = x if gated is None else torch.empty_like(out)
    gate, update = gated or (shift, shift)
    weight, bias = affine or (shift, shift)
    wide = x.expand(n, branches, length, width)
    _layer_norm_kernel[(n * branches * length,)](
        wide,
        gate,
        update.contiguous(),
        weight,
        bias,
        shift,
        scale,
        summed,
        out,
        length,
        branches,
        wide.stride(0),
        wide.stride(1),
        wide.stride(2),
        _rows(gate),
        _rows(shift),
        _rows(scale),
        EPS,
        width,
        power_of_2(width),
        gated is not None,
        affine is not None,
        num_warps=4,
        enable_fp_fusion=False,
    )
    return summed, out


def _rows(tensor: Tensor) -> int:
    """The stride between rows where all leading axes are one after another."""
    stride = rows_of(tensor)
    n, branches, length, _ = tensor.shape
    if (n > 1 and tensor.stride(0) != branches * length * stride) or (
        branches > 1 and tensor.stride(1) != length * stride
    ):
        raise ValueError(f"strides {tensor.stride()} of shape {tuple(tensor.shape)}: expected rows at one distance")
    return stride


@kernel("length", "branches")
def _layer_norm_kernel(
    x,
    gate,
    update,
    weight,
    bias,
    shift,
    scale,
    summed,
    out,
    length,
    branches,
    x_image,
    x_branch,
    x_token,
    gate_stride,
    shift_stride,
    scale_stride,
    eps,
    width: tl.constexpr,
    BLOCK: tl.constexpr,
    ADDS: tl.constexpr,
    AFFINE: tl.constexpr,
):
    dtype = out.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    token = row % length
    branch = row // length % branches
    image = row // length // branches
    c = tl.arange(0, BLOCK)
    inside = c < width
    h = tl.load(x + image * x_image + branch * x_branch + token * x_token + c, mask=inside, other=0.0).to(tl.float32)
    # Everything is loaded before the first sum, which waits for its loads.
    s = tl.load(scale + row * scale_stride + c, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(shift + row * shift_stride + c, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        g = tl.load(gate + row * gate_stride + c, mask=inside, other=0.0).to(tl.float32)
        h += g * tl.load(update + row * width + c, mask=inside, other=0.0).to(tl.float32)
        tl.store(summed + row * width + c, h.to(dtype), mask=inside)
        h = h.to(dtype).to(tl.float32)
    centred = tl.where(inside, h - tl.sum(h, 0) / width, 0.0)
    normed = centred * tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    if AFFINE:
        normed = normed * tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
        normed += tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
    normed = normed.to(dtype).to(tl.float32)
    s = (1 + s).to(dtype).to(tl.float32)
    tl.store(out + row * width + c, (b + normed * s).to(dtype), mask=inside)
