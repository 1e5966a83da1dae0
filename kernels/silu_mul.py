"""silu(gate)·up, what the gated MLP multiplies (Shazeer: GLU variants improve Transformer, arXiv 2002.05202)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.choose import kernel_runs
from kernels.launch import kernel, rows_of, tl

BLOCK = 2048


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """Two tensors (..., H) of one shape and dtype to a third: F.silu(gate) * up, rounded after each.

    They may be halves of one tensor (..., 2H).
    """
    return _launch(gate, up) if kernel_runs(gate, up) else twin(gate, up)


def twin(gate: Tensor, up: Tensor) -> Tensor:
    """The same in plain torch."""
    return F.silu(gate) * up


def _launch(gate: Tensor, up: Tensor) -> Tensor:
    width = gate.shape[-1]
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    gate, up = (part if _even(part) else part.contiguous() for part in (gate, up))
    strides = (rows_of(part) if part.ndim > 1 else width for part in (gate, up))
    _silu_mul_kernel[(-(-out.numel() // BLOCK),)](gate, up, out, out.numel(), *strides, width, BLOCK, num_warps=8)
    return out


def _even(part: Tensor) -> bool:
    """Whether a tensor's rows lie at one distance from each other, with a dense last axis."""
    return part.stride(-1) == 1 and all(
        part.stride(axis) == part.stride(axis + 1) * part.shape[axis + 1] for axis in range(part.ndim - 2)
    )


@kernel()
def _silu_mul_kernel(gate, up, out, count, gate_stride, up_stride, width: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    row, column = at // width, at % width
    g = tl.load(gate + row * gate_stride + column, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    activated = (g / (1 + tl.exp(-g))).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + at, (activated * u).to(out.dtype.element_ty), mask=inside)
