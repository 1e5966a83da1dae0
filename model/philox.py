"""Philox4x32-10, the counter-based generator of every random number of a picture (spec, section 8).

Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011). Words and uniforms are the same
to the bit on every device; exponentials and normals to 1e-6.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK32 = 0xFFFFFFFF
LARGEST_UNIFORM = 1 - 2.0**-24

Word = TypeVar("Word", int, Tensor)


def philox(counter: tuple[Word, Word, Word, Word], key: tuple[Word, Word]) -> tuple[Word, Word, Word, Word]:
    """Ten rounds over 32-bit words, held in Python integers or in int64 tensors that broadcast against each other.

    An int64 product of two words wraps around, yet its 64 bits are those of the unsigned one: the mask after the
    arithmetic shift leaves the right high word.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & MASK32) ^ c1 ^ k0,
            product1 & MASK32,
            ((product0 >> 32) & MASK32) ^ c3 ^ k1,
            product0 & MASK32,
        )
        k0, k1 = (k0 + WEYL[0]) & MASK32, (k1 + WEYL[1]) & MASK32
    return c0, c1, c2, c3


def key_of(seed: int) -> tuple[int, int]:
    """A 64-bit seed as the two key words, low word first."""
    return seed & MASK32, seed >> 32


def words(keys: Tensor, count: int, scale: int, purpose: int, step: int = 0) -> Tensor:
    """The first `count` words of a tensor for each picture: keys (n, 2) int64 to (n, count) int64 in [0, 2^32)."""
    blocks = torch.arange((count + 3) // 4, device=keys.device, dtype=torch.int64)[None]
    zeros = torch.zeros_like(blocks)
    counter = (blocks, zeros + scale, zeros + purpose, zeros + step)
    drawn = philox(counter, (keys[:, :1], keys[:, 1:]))
    return torch.stack(torch.broadcast_tensors(*drawn), dim=2).flatten(1)[:, :count]


def uniforms(drawn: Tensor) -> Tensor:
    """Words to float32 in (0, 1): 2w+1 is rounded once, on its way to float32."""
    return ((2 * drawn + 1).to(torch.float32) * 2.0**-33).clamp_max(LARGEST_UNIFORM)


def exponentials(drawn: Tensor) -> Tensor:
    """Words to standard exponentials."""
    return -uniforms(drawn).log()


def normals(drawn: Tensor) -> Tensor:
    """Words (n, even) to standard normals, by Box-Muller on pairs of neighbours."""
    u = uniforms(drawn).unflatten(1, (-1, 2))
    radius = (-2 * u[..., 0].log()).sqrt()
    angle = 2 * math.pi * u[..., 1]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).flatten(1)
