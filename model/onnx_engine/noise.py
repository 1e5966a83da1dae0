"""Philox (docs/spec.md, section 8) in numpy, for a picture's many words: it takes two thirds of torch's time."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from common.philox import MASK32, MULTIPLIERS, ROUNDS, WEYL
from kernels.philox import MAX_UNIFORM
from model.noise import GUMBEL, TOKEN_DRAW, Noise, Scales, SeededNoise
from model.onnx_engine.graph import Array

CHUNK = 16384
"""Blocks that are computed at once: their arrays fit into a core's cache."""
LOW, HIGH = np.uint64(MASK32), np.uint64(32)


def draw_ahead(sources: Sequence[Noise], scale: int, scales: Scales, mixtures: bool) -> None:
    """Draws what `model.noise.draw_scale` is about to draw for seeded images, and leaves it where it looks first."""
    purposes = (TOKEN_DRAW, GUMBEL)[: 1 + mixtures]
    for source in sources:
        if isinstance(source, SeededNoise) and len(source.drawn.get(scale, ())) < len(purposes):
            together = scales.together(scale) if source.ahead else [scale]
            _draw(source, {later: math.prod(scales.shape(later)) for later in together}, purposes)


def _draw(source: SeededNoise, counts: Mapping[int, int], purposes: Sequence[int]) -> None:
    blocks = {scale: -(-count // 4) for scale, count in counts.items()}
    numbers = np.concatenate([np.arange(count, dtype=np.uint64) for count in blocks.values()])
    of_scale = np.repeat(np.array(list(blocks), np.uint64), list(blocks.values()))
    key: list[int] = source.key.tolist()
    drawn = [_exponentials(key, numbers, of_scale, purpose) for purpose in purposes]
    at = 0
    for scale, count in counts.items():
        source.drawn[scale] = torch.from_numpy(np.stack([values[at : at + count] for values in drawn]))
        at += 4 * blocks[scale]


def _exponentials(key: Sequence[int], numbers: Array, scales: Array, purpose: int) -> Array:
    """Standard exponentials, float32: four of each block, whose counter is (number, scale, purpose, 0)."""
    out = np.empty((len(numbers), 4), np.float32)
    for at in range(0, len(numbers), CHUNK):
        part = slice(at, at + CHUNK)
        words = philox(numbers[part], scales[part], purpose, key)
        for i, word in enumerate(words):
            # As kernels.philox.uniforms: 2w + 1 is rounded once, on its way to float32.
            out[part, i] = (word << np.uint64(1) | np.uint64(1)).view(np.int64)
    out *= np.float32(2.0**-33)
    np.minimum(out, np.float32(MAX_UNIFORM), out=out)
    values = torch.from_numpy(out.reshape(-1)).log_().neg_()  # torch's logarithm: the same bits as its own noise
    return values.numpy()


def philox(numbers: Array, scales: Array, purpose: int, key: Sequence[int]) -> list[Array]:
    """The four words of blocks with counters (number, scale, purpose, 0), uint64 each."""
    first, second = numbers.copy(), scales.copy()
    third, fourth = np.full_like(first, purpose), np.zeros_like(first)
    products = np.empty((2, len(first)), np.uint64)
    by_first, by_third = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
    for i in range(ROUNDS):
        left, right = (np.uint64((word + i * step) & MASK32) for word, step in zip(key, WEYL, strict=True))
        np.multiply(first, by_first, out=products[0])
        np.multiply(third, by_third, out=products[1])
        np.right_shift(products[1], HIGH, out=first)
        first ^= second
        first ^= left
        np.right_shift(products[0], HIGH, out=third)
        third ^= fourth
        third ^= right
        np.bitwise_and(products[1], LOW, out=second)
        np.bitwise_and(products[0], LOW, out=fourth)
    return [first, second, third, fourth]
