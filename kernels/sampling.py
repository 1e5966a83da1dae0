"""From logits to tokens and embeddings in one pass: guidance, top-k, draw, soft mixture (docs/spec.md, section 3).

One program draws one token. It finds the k-th largest logit by a radix select over the bits of ordered integers, two
bits a round, and makes its random words itself (docs/spec.md, section 8), so that neither noise nor weights over the
codebook pass through memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels import philox
from kernels.choose import kernel_runs
from kernels.launch import helper, kernel, power_of_2, tl

TOKEN_DRAW, GUMBEL = 0, 1
"""The purposes of the two draws in Philox's counter."""
MAX_VOCABULARY = 16384
"""A larger one does not fit into a program's registers: the twin draws from it."""
CHUNK = 128
"""Codebook entries that are mixed at once."""


@dataclass(frozen=True)
class Draw:
    """How a scale is drawn, alike for all images."""

    scale: int
    """k: a word of Philox's counter."""
    top_k: int
    """So many of the largest logits are kept, and ties with the last of them."""
    sharpness: float
    """What logits are multiplied by before the soft mixture: 1 + ratio."""
    temperature: float
    """Of the soft mixture."""


def sample(
    logits: Tensor, guidance: Tensor, keys: Tensor, smooth: Tensor, codebook: Tensor, draw: Draw
) -> tuple[Tensor, Tensor]:
    """Indices (n, L), int64, and embeddings (n, L, Z).

    logits (n, 2, L, V), conditional first, guidance (n,) and codebook (V, Z), float32; keys (n, 2), int64 words of the
    seeds, low first; smooth (n,), bool: embeddings are soft mixtures of the codebook there, the drawn rows elsewhere.
    """
    if kernel_runs(logits, guidance, codebook) and logits.shape[-1] <= MAX_VOCABULARY:
        return _launch(logits, guidance, keys, smooth, codebook, draw)
    return twin(logits, guidance, keys, smooth, codebook, draw)


def twin(
    logits: Tensor, guidance: Tensor, keys: Tensor, smooth: Tensor, codebook: Tensor, draw: Draw
) -> tuple[Tensor, Tensor]:
    """The same in plain torch."""
    t = guidance[:, None, None]
    guided = (1 + t) * logits[:, 0] - t * logits[:, 1]
    if draw.top_k < guided.shape[-1]:
        least = guided.topk(draw.top_k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
        guided = guided.masked_fill(guided < least, float("-inf"))
    [words] = philox.words_of_scales(keys, {draw.scale: guided[0].numel()}, (TOKEN_DRAW, GUMBEL))
    exponential, gumbel = philox.exponentials(words).unflatten(2, guided.shape[1:]).unbind(1)
    tokens = (guided.softmax(-1) / exponential).argmax(-1)
    mixture = ((guided * draw.sharpness - gumbel.log()) / draw.temperature).softmax(-1) @ codebook
    return tokens, torch.where(smooth[:, None, None], mixture, codebook[tokens])


def _launch(
    logits: Tensor, guidance: Tensor, keys: Tensor, smooth: Tensor, codebook: Tensor, draw: Draw
) -> tuple[Tensor, Tensor]:
    n, _, length, vocabulary = logits.shape
    channels = codebook.shape[1]
    tokens = torch.empty(n, length, dtype=torch.int64, device=logits.device)
    embeddings = torch.empty(n, length, channels, dtype=torch.float32, device=logits.device)
    block = max(CHUNK, power_of_2(vocabulary))
    _kernel[(n * length,)](
        logits.contiguous(),
        guidance,
        keys.contiguous(),
        smooth,
        codebook.contiguous(),
        tokens,
        embeddings,
        length,
        draw.scale,
        draw.top_k,
        draw.sharpness,
        draw.temperature,
        vocabulary,
        channels,
        power_of_2(channels),
        block,
        CHUNK,
        vocabulary % 4 == 0,
        num_warps=8,
        enable_fp_fusion=False,
    )
    return tokens, embeddings


@helper
def _exponential(word):
    """Words to standard exponentials: 2w + 1 is rounded once, on its way to float32."""
    odd = 2 * word.to(tl.uint32, bitcast=True).to(tl.int64) + 1
    uniform = odd.to(tl.float32) * 1.1641532182693481e-10
    return -tl.log(tl.minimum(uniform, 0.9999999403953552))


@helper
def _noise(seed, first, scale, purpose, COUNT: tl.constexpr, WHOLE: tl.constexpr):
    """Exponentials of the elements `first` to `first` + COUNT; WHOLE: `first` is a multiple of four."""
    if WHOLE:
        block = (first // 4 + tl.arange(0, COUNT // 4)).to(tl.uint32)
        zero = tl.zeros_like(block)
        w0, w1, w2, w3 = tl.philox(seed, block, zero + scale, zero + purpose, zero)
        return _exponential(tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3)))
    index = first + tl.arange(0, COUNT)
    block = (index // 4).to(tl.uint32)
    zero = tl.zeros_like(block)
    w0, w1, w2, w3 = tl.philox(seed, block, zero + scale, zero + purpose, zero)
    lane = index % 4
    return _exponential(tl.where(lane == 0, w0, tl.where(lane == 1, w1, tl.where(lane == 2, w2, w3))))


@helper
def _guided(logits, conditional, unconditional, t, v, inside):
    """(1 + t)·conditional - t·unconditional, -inf outside."""
    c = tl.load(logits + conditional + v, mask=inside, other=0.0)
    u = tl.load(logits + unconditional + v, mask=inside, other=0.0)
    return tl.where(inside, (1 + t) * c - t * u, float("-inf"))


@helper
def _kth_largest(value, count):
    """The count-th largest of the values: the largest bound that so many of them reach."""
    bits = value.to(tl.int32, bitcast=True)
    # As unsigned integers in the order of the floats: the sign bit is turned for positive ones, all bits for others.
    order = bits ^ ((bits >> 31) | -2147483648)
    order = order.to(tl.uint32, bitcast=True).to(tl.int64)
    bound = tl.full((), 0, tl.int64)
    for step in range(16):
        unit = tl.full((), 1, tl.int64) << (30 - 2 * step)
        # Three counts in one sum: each is less than 2^20.
        reached = (order >= bound + unit).to(tl.int64)
        reached += (order >= bound + 2 * unit).to(tl.int64) << 20
        reached += (order >= bound + 3 * unit).to(tl.int64) << 40
        counts = tl.sum(reached, 0)
        bound += tl.where((counts & 0xFFFFF) >= count, unit, 0)
        bound += tl.where(((counts >> 20) & 0xFFFFF) >= count, unit, 0)
        bound += tl.where((counts >> 40) >= count, unit, 0)
    bits = bound.to(tl.uint32).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ -2147483648, ~bits).to(tl.float32, bitcast=True)


@kernel("length", "scale", "top_k")
def _kernel(
    logits,
    guidance,
    keys,
    smooth,
    codebook,
    tokens,
    embeddings,
    length,
    scale,
    top_k,
    sharpness,
    temperature,
    V: tl.constexpr,
    Z: tl.constexpr,
    BLOCK_Z: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    WHOLE: tl.constexpr,
):
    row = tl.program_id(0)
    image = row // length
    place = row % length
    seed = tl.load(keys + 2 * image) | (tl.load(keys + 2 * image + 1) << 32)
    t = tl.load(guidance + image)
    conditional = (image.to(tl.int64) * 2 * length + place) * V
    unconditional = conditional + length.to(tl.int64) * V
    v = tl.arange(0, BLOCK)
    inside = v < V
    value = _guided(logits, conditional, unconditional, t, v, inside)
    least = tl.full((), float("-inf"), tl.float32)
    if top_k < V:
        least = _kth_largest(value, top_k)
        value = tl.where(value < least, float("-inf"), value)
    top = tl.max(value, 0)
    share = tl.exp(value - top)
    share = share / tl.sum(share, 0)
    raced = tl.where(inside, share / _noise(seed, place * V, scale, 0, BLOCK, WHOLE), -1.0)
    token = tl.argmax(raced, 0)
    tl.store(tokens + row, token.to(tl.int64))
    z = tl.arange(0, BLOCK_Z)
    if tl.load(smooth + image):
        # The softmax of a chunk at a time, with the largest so far: sums are scaled down when it grows.
        top = tl.full((), float("-inf"), tl.float32)
        total = tl.full((), 0.0, tl.float32)
        mixture = tl.zeros([BLOCK_Z], dtype=tl.float32)
        for first in range(0, V, CHUNK):
            u = first + tl.arange(0, CHUNK)
            part = _guided(logits, conditional, unconditional, t, u, u < V)
            kept = (part >= least) & (u < V)
            gumbel = tl.log(_noise(seed, place * V + first, scale, 1, CHUNK, WHOLE))
            part = tl.where(kept, (part * sharpness - gumbel) / temperature, float("-inf"))
            higher = tl.maximum(top, tl.max(part, 0))
            # Before the first kept entry there is nothing to scale, and -inf less -inf is no number.
            weights = tl.where(kept, tl.exp(part - higher), 0.0)
            before = tl.where(top == higher, 1.0, tl.exp(top - higher))
            book = tl.load(codebook + u[:, None] * Z + z[None, :], mask=kept[:, None] & (z < Z)[None, :], other=0.0)
            mixture = mixture * before + tl.sum(weights[:, None] * book, 0)
            total = total * before + tl.sum(weights, 0)
            top = higher
        embedding = mixture / total
    else:
        embedding = tl.load(codebook + token * Z + z, mask=z < Z, other=0.0)
    tl.store(embeddings + row * Z + z, embedding, mask=z < Z)
