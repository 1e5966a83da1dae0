"""Philox4x32-10 over plain integers (docs/spec.md, section 8).

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). One block at a time: it derives
seeds, and it is what faster implementations are compared with.
"""

from __future__ import annotations

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK32 = 0xFFFFFFFF

Words = tuple[int, int, int, int]
"""Four words of 32 bits."""
Key = tuple[int, int]
"""Two words of 32 bits."""


def philox(counter: Words, key: Key) -> Words:
    """The output block of one counter block."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = (product1 >> 32) ^ c1 ^ k0, product1 & MASK32
        c2, c3 = (product0 >> 32) ^ c3 ^ k1, product0 & MASK32
        k0, k1 = (k0 + WEYL[0]) & MASK32, (k1 + WEYL[1]) & MASK32
    return c0, c1, c2, c3


def key_of(seed: int) -> Key:
    """The key of a 64-bit seed, low word first."""
    return seed & MASK32, seed >> 32
