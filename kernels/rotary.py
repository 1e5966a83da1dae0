"""Query and value biases, the rotary embedding, and the write into the KV cache (docs/spec.md, section 2).

Su et al.: RoFormer (arXiv 2104.09864). Both kinds, the context's by position and the image's by row and column, are
tables of cosines and signed sines.
"""

import torch
from torch import Tensor

from kernels.choose import kernel_runs
from kernels.launch import kernel, power_of_2, tl

Biases = tuple[Tensor, Tensor]
"""Of queries and of values, (C,) each; keys have none."""
Table = tuple[Tensor, Tensor]
"""Cosines and sines, (rows, 1, L, d) each; the sines of an element's first half are negated."""
Kept = tuple[Tensor, Tensor]
"""Keys and values of one layer, (kept rows, H, tokens, d) each, into which rows are written."""


def rotate_and_keep(qkv: Tensor, biases: Biases, table: Table, kept: Kept, rows: Tensor, start: int) -> Tensor:
    """Adds the biases to qkv (rows, L, 3, H, d), turns queries and keys, writes keys and values of row i into row
    rows[i] (int64) of `kept` from token `start` on, and returns the queries (rows, H, L, d)."""
    if kernel_runs(qkv, *biases, *table, *kept):
        return _launch(qkv, biases, table, kept, rows, start)
    return twin(qkv, biases, table, kept, rows, start)


def twin(qkv: Tensor, biases: Biases, table: Table, kept: Kept, rows: Tensor, start: int) -> Tensor:
    """The same in plain torch."""
    q_bias, v_bias = biases
    joined = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias]).view(qkv.shape[2:])
    qk, v = (qkv + joined).permute(2, 0, 3, 1, 4).split([2, 1])  # (2, rows, H, L, d) and (1, ...)
    q, k = rotate(qk, table)
    end = start + qkv.shape[1]
    for target, source in zip(kept, (k, v[0]), strict=True):
        target[rows, :, start:end] = source
    return q


def rotate(x: Tensor, table: Table) -> Tensor:
    """x (..., rows, H, L, d): x·cos, then the other half of each head times the signed sines is added."""
    cos, sin = table
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat([second, first], dim=-1), sin)


def _launch(qkv: Tensor, biases: Biases, table: Table, kept: Kept, rows: Tensor, start: int) -> Tensor:
    count, length, _, heads, size = qkv.shape
    queries = torch.empty(count, length, heads, size, dtype=qkv.dtype, device=qkv.device)
    cos, sin = (part.contiguous() for part in table)
    keys, values = kept
    if keys.stride() != values.stride() or keys.stride(3) != 1:
        raise ValueError(f"kept: strides {keys.stride()}, {values.stride()}: expected alike, with a dense last axis")
    _rotary_kernel[(count * length,)](
        qkv.contiguous(),
        *biases,
        cos,
        sin,
        queries,
        keys,
        values,
        rows,
        length,
        start,
        0 if cos.shape[0] == 1 else length * size,
        keys.stride(0),
        keys.stride(1),
        keys.stride(2),
        heads,
        size,
        power_of_2(heads * size),
        num_warps=4,
        enable_fp_fusion=False,
    )
    return queries.transpose(1, 2)  # attention keeps this order in memory, so that heads lie beside each other


@kernel("length", "start")
def _rotary_kernel(
    qkv,
    q_bias,
    v_bias,
    cos,
    sin,
    queries,
    keys,
    values,
    rows,
    length,
    start,
    table_stride,
    kept_row,
    kept_head,
    kept_token,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    dtype = queries.dtype.element_ty
    token = tl.program_id(0).to(tl.int64)
    row = token // length
    place = token % length
    width: tl.constexpr = HEADS * SIZE
    c = tl.arange(0, BLOCK)
    inside = c < width
    head = c // SIZE
    j = c % SIZE
    partner = head * SIZE + (j + SIZE // 2) % SIZE
    angle = row * table_stride + place * SIZE + j
    cosine = tl.load(cos + angle, mask=inside, other=0.0).to(tl.float32)
    sine = tl.load(sin + angle, mask=inside, other=0.0).to(tl.float32)
    here = qkv + token * 3 * width
    q = tl.load(here + c, mask=inside, other=0.0).to(tl.float32)
    q = (q + tl.load(q_bias + c, mask=inside, other=0.0).to(tl.float32)).to(dtype).to(tl.float32)
    other = tl.load(here + partner, mask=inside, other=0.0).to(tl.float32)
    other = (other + tl.load(q_bias + partner, mask=inside, other=0.0).to(tl.float32)).to(dtype).to(tl.float32)
    q = (q * cosine).to(dtype).to(tl.float32) + other * sine
    tl.store(queries + token * width + c, q.to(dtype), mask=inside)
    k = tl.load(here + width + c, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(here + width + partner, mask=inside, other=0.0).to(tl.float32)
    k = (k * cosine).to(dtype).to(tl.float32) + other * sine
    v = tl.load(here + 2 * width + c, mask=inside, other=0.0).to(tl.float32)
    v = v + tl.load(v_bias + c, mask=inside, other=0.0).to(tl.float32)
    target = tl.load(rows + row).to(tl.int64) * kept_row + head * kept_head + (start + place) * kept_token + j
    tl.store(keys + target, k.to(dtype), mask=inside)
    tl.store(values + target, v.to(dtype), mask=inside)
