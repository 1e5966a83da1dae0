"""From logits to tokens and embeddings in one pass: guidance, top-k, draw, soft mixture (docs/spec.md, section 3).

One program draws one token. It finds the k-th largest logit by a radix select over the bits of ordered integers, two
bits a round, and makes its random words itself (docs/spec.md, section 8), so that no noise passes through memory. It
writes the token's weights over the codebook, from which one matrix product makes the embeddings of all tokens.
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
WARPS = 4


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
    logits: Tensor, guidance: Tensor, keys: Tensor, more_smooth: Tensor, codebook: Tensor, draw: Draw
) -> tuple[Tensor, Tensor]:
    """Indices (n, L), int64, and embeddings (n, L, Z).

    logits (n, 2, L, V), conditional first, or (n, 1, L, V) without guidance, guidance (n,) and codebook (V, Z),
    float32; keys (n, 2), int64 words of the seeds, low first; more_smooth (n,), bool: embeddings are soft mixtures of
    the codebook there, the drawn rows elsewhere. A token with a logit that is not finite has an embedding of NaN.
    """
    if kernel_runs(logits, guidance, codebook) and logits.shape[-1] <= MAX_VOCABULARY:
        return _launch(logits, guidance, keys, more_smooth, codebook, draw)
    return twin(logits, guidance, keys, more_smooth, codebook, draw)


def twin(
    logits: Tensor, guidance: Tensor, keys: Tensor, more_smooth: Tensor, codebook: Tensor, draw: Draw
) -> tuple[Tensor, Tensor]:
    """The same in plain torch."""
    t = guidance[:, None, None]
    guided = logits[:, 0] if logits.shape[1] == 1 else (1 + t) * logits[:, 0] - t * logits[:, 1]
    if draw.top_k < guided.shape[-1]:
        least = guided.topk(draw.top_k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
        guided = guided.masked_fill(guided < least, float("-inf"))
    [words] = philox.words_of_scales(keys, {draw.scale: guided[0].numel()}, (TOKEN_DRAW, GUMBEL))
    exponential, gumbel = philox.exponentials(words).unflatten(2, guided.shape[1:]).unbind(1)
    tokens = (guided.softmax(-1) / exponential).argmax(-1)
    mixture = ((guided * draw.sharpness - gumbel.log()) / draw.temperature).softmax(-1) @ codebook
    embeddings = torch.where(more_smooth[:, None, None], mixture, codebook[tokens])
    return tokens, spoil(embeddings, logits)


def spoil(embeddings: Tensor, logits: Tensor) -> Tensor:
    """Embeddings (n, L, Z), NaN where one of the logits (n, branches, L, V) is not finite: a draw from such logits is a
    valid token, and nothing later would show the error."""
    return embeddings.masked_fill(~logits.isfinite().all(-1).all(1)[..., None], torch.nan)


def _launch(
    logits: Tensor, guidance: Tensor, keys: Tensor, more_smooth: Tensor, codebook: Tensor, draw: Draw
) -> tuple[Tensor, Tensor]:
    n, branches, length, vocabulary = logits.shape
    tokens = torch.empty(n, length, dtype=torch.int64, device=logits.device)
    weights = torch.empty(n, length, vocabulary, dtype=torch.float32, device=logits.device)
    _sampling_kernel[(n * length,)](
        logits.contiguous(),
        guidance,
        keys.contiguous(),
        more_smooth,
        tokens,
        weights,
        length,
        draw.scale,
        draw.top_k,
        draw.sharpness,
        draw.temperature,
        vocabulary,
        max(4, power_of_2(vocabulary)),
        vocabulary % 4 == 0,
        branches,
        num_warps=WARPS,
        enable_fp_fusion=False,
    )
    return tokens, weights @ codebook


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
def _kth_largest(value, count):
    """The count-th largest of the values: the largest bound that so many of them reach."""
    bits = value.to(tl.int32, bitcast=True)
    # As unsigned integers in the order of the floats: the sign bit is turned for positive ones, all bits for others.
    order = bits ^ ((bits >> 31) | -2147483648)
    order = order.to(tl.uint32, bitcast=True)
    bound = tl.full((), 0, tl.uint32)
    for step in range(16):
        unit = tl.full((), 1, tl.uint32) << (30 - 2 * step)
        # Three counts in one sum: each is less than 2^20.
        reached = (order >= bound + unit).to(tl.int64)
        reached += (order >= bound + 2 * unit).to(tl.int64) << 20
        reached += (order >= bound + 3 * unit).to(tl.int64) << 40
        counts = tl.sum(reached, 0)
        bound += tl.where((counts & 0xFFFFF) >= count, unit, 0)
        bound += tl.where(((counts >> 20) & 0xFFFFF) >= count, unit, 0)
        bound += tl.where((counts >> 40) >= count, unit, 0)
    bits = bound.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ -2147483648, ~bits).to(tl.float32, bitcast=True)


@kernel("length", "scale", "top_k")
def _sampling_kernel(
    logits,
    guidance,
    keys,
    more_smooth,
    tokens,
    weights,
    length,
    scale,
    top_k,
    sharpness,
    temperature,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
    BRANCHES: tl.constexpr,
):
    row = tl.program_id(0)
    image = row // length
    place = row % length
    seed = tl.load(keys + 2 * image) | (tl.load(keys + 2 * image + 1) << 32)
    t = tl.load(guidance + image)
    conditional = (image.to(tl.int64) * BRANCHES * length + place) * V
    unconditional = conditional + length.to(tl.int64) * V
    v = tl.arange(0, BLOCK)
    inside = v < V
    c = tl.load(logits + conditional + v, mask=inside, other=0.0)
    if BRANCHES == 2:
        c = (1 + t) * c - t * tl.load(logits + unconditional + v, mask=inside, other=0.0)
    value = tl.where(inside, c, float("-inf"))
    spoiled = tl.sum(tl.where(inside, value * 0, 0.0), 0)  # 0, or NaN where a logit is not finite
    if top_k < V:
        value = tl.where(value < _kth_largest(value, top_k), float("-inf"), value)
    top = tl.max(value, 0)
    share = tl.exp(value - top)
    share = share / tl.sum(share, 0)
    raced = tl.where(inside, share / _noise(seed, place * V, scale, 0, BLOCK, WHOLE), -1.0)
    token = tl.argmax(raced, 0)
    tl.store(tokens + row, token.to(tl.int64))
    if tl.load(more_smooth + image):
        gumbel = tl.log(_noise(seed, place * V, scale, 1, BLOCK, WHOLE))
        part = (value * sharpness - gumbel) / temperature
        weight = tl.exp(part - tl.max(part, 0))
        weight = weight / tl.sum(weight, 0)
    else:
        weight = (v == token).to(tl.float32)
    tl.store(weights + row.to(tl.int64) * V + v, weight + spoiled, mask=inside)
