"""silu(gate)·up, what the gated MLP multiplies (Shazeer: GLU variants improve Transformer, arXiv 2002.05202)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.choose import kernel_runs
from kernels.launch import kernel, tl

BLOCK = 2048


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """Two tensors of one shape and dtype to a third: F.silu(gate) * up, rounded after each."""
    return _launch(gate, up) if kernel_runs(gate, up) else twin(gate, up)


def twin(gate: Tensor, up: Tensor) -> Tensor:
    """The same in plain torch."""
    return F.silu(gate) * up


def _launch(gate: Tensor, up: Tensor) -> Tensor:
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    _kernel[(-(-gate.numel() // BLOCK),)](gate, up, out, gate.numel(), BLOCK, num_warps=8)
    return out


@kernel()
def _kernel(gate, up, out, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    g = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    activated = (g / (1 + tl.exp(-g))).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + at, (activated * u).to(out.dtype.element_ty), mask=inside)
