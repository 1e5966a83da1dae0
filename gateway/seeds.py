"""The seeds of a request's pictures (spec, section 8). Knows no request.

Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The gateway has no
torch, so that the ten rounds stand here once more, over plain integers.
"""

from __future__ import annotations

import hashlib
import secrets

LARGEST_SEED = 2**64 - 1
DRAWN_BITS = 53  # what JSON and JavaScript hold exactly
_MASK32 = 0xFFFFFFFF
_DRAWN_MASK = (1 << DRAWN_BITS) - 1
_ROUNDS = 10

Words = tuple[int, int, int, int]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """The four output words of one counter block; every word 32 bits."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK32, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK32
        k0, k1 = (k0 + 0x9E3779B9) & _MASK32, (k1 + 0xBB67AE85) & _MASK32
    return c0, c1, c2, c3


def seed_of_image(seed: int, index: int) -> int:
    """The seed of picture `index` of a request: the request's own for the first, 53 derived bits for the others."""
    if index == 0:
        return seed
    low, high, _, _ = philox((index, 0, 0xFFFFFFFF, 0), (seed & _MASK32, seed >> 32))
    return (low | high << 32) & _DRAWN_MASK


def seed_of_request_id(request_id: str) -> int:
    """A 53-bit seed that any gateway derives from the same request id."""
    digest = hashlib.sha256(b"hart seed\n" + request_id.encode()).digest()
    return int.from_bytes(digest[:8], "little") & _DRAWN_MASK


def draw_seed() -> int:
    """A fresh 53-bit seed."""
    return secrets.randbits(DRAWN_BITS)
