"""Philox4x32-10, the counter-based generator of every random number of a picture (docs/spec.md, section 8).

Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011). Words and uniforms are the same
to the bit on every device; exponentials and normals to 1e-6.
"""

import math

import torch
from torch import Tensor

from common.philox import MASK32, MULTIPLIERS, ROUNDS, WEYL

MAX_UNIFORM = 1 - 2.0**-24


def philox_blocks(counters: Tensor, keys: Tensor) -> Tensor:
    """The same for m blocks under each of n keys: (4, n, m) and (n, 2) to (4, n, m), int64 in [0, 2^32).

    A round is five operations, because on a GPU it is their number that costs: both halves of a block go through it
    together, and the halves of a product are looked at where they lie. An int64 product of two words wraps around,
    yet its 64 bits are those of the unsigned one.
    """
    rounds = torch.arange(ROUNDS, device=keys.device)
    round_keys = _low(torch.stack([keys[:, half, None] + WEYL[half] * rounds for half in (0, 1)]))  # (2, n, rounds)
    multipliers = torch.stack([torch.full_like(keys[:1, :1], multiplier) for multiplier in MULTIPLIERS])
    counters = counters.contiguous()
    multiplied, added = counters[0::2], _low(counters[1::2])
    for i in range(ROUNDS):
        # Each half goes on with the other's product.
        product = (multiplied * multipliers).view(torch.int32).unflatten(-1, (-1, 2)).flip(0)
        mixed = (product[..., 1] ^ added).bitwise_xor_(round_keys[..., i : i + 1])
        multiplied, added = _unsigned(mixed), product[..., 0]
    return torch.stack([multiplied, _unsigned(added.contiguous())], 1).flatten(0, 1)


def _low(words: Tensor) -> Tensor:
    """The low 32 bits of contiguous int64, as int32: a view."""
    return words.view(torch.int32)[..., ::2]


def _unsigned(words: Tensor) -> Tensor:
    """int32 to int64 in [0, 2^32) with the same bits."""
    return words.view(torch.uint32).long()


def key_of(seed: int) -> tuple[int, int]:
    """A 64-bit seed as the two key words, low word first."""
    return seed & MASK32, seed >> 32


def words(keys: Tensor, count: int, scale: int, purpose: int, step: int | Tensor = 0) -> Tensor:
    """The first `count` words of a tensor for each of n keys: (n, 2) int64 to (n, count) int64 in [0, 2^32).

    `step` is one number for all, or int64 (n,).
    """
    counters = torch.empty(4, len(keys), (count + 3) // 4, dtype=torch.int64, device=keys.device)
    counters[0] = torch.arange(counters.shape[2], device=keys.device)
    counters[1], counters[2] = scale, purpose
    counters[3] = step if isinstance(step, int) else step[:, None]
    return philox_blocks(counters, keys).permute(1, 2, 0).flatten(1)[:, :count]


def uniforms(drawn: Tensor) -> Tensor:
    """Words to float32 in (0, 1): 2w+1 is rounded once, on its way to float32."""
    return ((2 * drawn + 1).to(torch.float32) * 2.0**-33).clamp_max(MAX_UNIFORM)


def exponentials(drawn: Tensor) -> Tensor:
    """Words to standard exponentials."""
    return -uniforms(drawn).log()


def normals(drawn: Tensor) -> Tensor:
    """Words (n, even) to standard normals, by Box-Muller on pairs of neighbours."""
    u = uniforms(drawn).unflatten(1, (-1, 2))
    radius = (-2 * u[..., 0].log()).sqrt()
    angle = 2 * math.pi * u[..., 1]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).flatten(1)
