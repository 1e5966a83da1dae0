"""Philox4x32-10, the counter-based generator of every random number of a picture (docs/spec.md, section 8).

Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011). Words and uniforms are the same
to the bit on every device; exponentials and normals to 1e-6.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from common.philox import MASK32, MULTIPLIERS, ROUNDS, WEYL

MAX_UNIFORM = 1 - 2.0**-24


def philox_blocks(counters: Tensor, keys: Tensor) -> Tensor:
    """The same for m blocks under each of n keys: (4, n or 1, m) and (n, 2) to (4, n, m), int64 in [0, 2^32).

    A round is five operations, because on a GPU it is their number that costs: both halves of a block go through it
    together, and the halves of a product are looked at where they lie. An int64 product of two words wraps around,
    yet its 64 bits are those of the unsigned one.
    """
    multipliers, weyl = _constants(keys.device)
    round_keys = _low(keys.t()[:, :, None] + weyl)  # (2, n, rounds)
    counters = counters.contiguous()
    multiplied, added = counters[0::2], _low(counters[1::2])
    for i in range(ROUNDS):
        # Each half goes on with the other's product.
        product = (multiplied * multipliers).view(torch.int32).unflatten(-1, (-1, 2)).flip(0)
        multiplied = _unsigned((product[..., 1] ^ added) ^ round_keys[..., i : i + 1])
        added = product[..., 0]
    return torch.stack([multiplied, _unsigned(added)], 1).flatten(0, 1)


@cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """Multipliers (2, 1, 1) and the keys' increments (2, 1, rounds)."""
    increments = [[[weyl * i & MASK32 for i in range(ROUNDS)]] for weyl in WEYL]
    return torch.tensor(MULTIPLIERS, device=device)[:, None, None], torch.tensor(increments, device=device)


def _low(words: Tensor) -> Tensor:
    """The low 32 bits of contiguous int64, as int32: a view."""
    return words.view(torch.int32)[..., ::2]


def _unsigned(words: Tensor) -> Tensor:
    """int32 to int64 in [0, 2^32) with the same bits."""
    return words.view(torch.uint32).long()


def key_of(seed: int) -> tuple[int, int]:
    """A 64-bit seed as the two key words, low word first."""
    return seed & MASK32, seed >> 32


def words(keys: Tensor, count: int, scale: int, purpose: int | Tensor, step: int | Tensor = 0) -> Tensor:
    """The first `count` words of a tensor for each of n keys: (n, 2) int64 to (n, count) int64 in [0, 2^32).

    `purpose` and `step` are one number for all, or int64 (n,).
    """
    n = len(keys) if isinstance(purpose, Tensor) or isinstance(step, Tensor) else 1
    counters = torch.empty(4, n, (count + 3) // 4, dtype=torch.int64, device=keys.device)
    counters[0] = torch.arange(counters.shape[2], device=keys.device)
    counters[1] = scale
    for row, number in ((2, purpose), (3, step)):
        counters[row] = number[:, None] if isinstance(number, Tensor) else number
    return philox_blocks(counters, keys).permute(1, 2, 0).flatten(1)[:, :count]


def words_of_scales(keys: Tensor, counts: Mapping[int, int], purposes: Sequence[int]) -> list[Tensor]:
    """The words of several scales and purposes in one call: per scale (n, purposes, count). `counts` is by scale."""
    blocks = [(count + 3) // 4 for count in counts.values()]
    counters = torch.zeros(4, len(purposes), sum(blocks), dtype=torch.int64, device=keys.device)
    counters[0] = torch.cat([torch.arange(number, device=keys.device) for number in blocks])
    scales = zip(counts, blocks, strict=True)
    counters[1] = torch.cat([torch.full((number,), scale, device=keys.device) for scale, number in scales])
    for at, purpose in enumerate(purposes):
        counters[2, at] = purpose
    drawn = philox_blocks(counters.flatten(1)[:, None], keys).permute(1, 2, 0).reshape(len(keys), len(purposes), -1)
    parts = drawn.split([4 * number for number in blocks], dim=2)
    return [part[..., :count] for part, count in zip(parts, counts.values(), strict=True)]


def uniforms(drawn: Tensor) -> Tensor:
    """Words to float32 in (0, 1): 2w+1 is rounded once, on its way to float32."""
    return ((2 * drawn).add_(1).to(torch.float32).mul_(2.0**-33)).clamp_max_(MAX_UNIFORM)


def exponentials(drawn: Tensor) -> Tensor:
    """Words to standard exponentials."""
    return uniforms(drawn).log_().neg_()


def normals(drawn: Tensor) -> Tensor:
    """Words (n, even) to standard normals, by Box-Muller on pairs of neighbours."""
    u = uniforms(drawn).unflatten(1, (-1, 2))
    radius = (-2 * u[..., 0].log()).sqrt()
    angle = 2 * math.pi * u[..., 1]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).flatten(1)
