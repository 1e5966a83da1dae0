"""The seeds of a request's images (docs/spec.md, section 8)."""

from __future__ import annotations

import hashlib
import secrets

from common.philox import MASK32, key_of, philox

MAX_SEED = 2**64 - 1
DRAWN_SEED_BITS = 53
"""What JSON and JavaScript hold exactly; a seed that a caller gives may be any up to MAX_SEED."""
_DRAWN_MASK = (1 << DRAWN_SEED_BITS) - 1


def seed_of_image(seed: int, index: int) -> int:
    """The seed of image `index` of a request: the request's own for the first, 53 derived bits for the others, so that
    each image can be drawn again alone."""
    if index == 0:
        return seed
    low, high, _, _ = philox((index, 0, MASK32, 0), key_of(seed))
    return (low | high << 32) & _DRAWN_MASK


def seed_of_request_id(request_id: str) -> int:
    """A 53-bit seed that every gateway derives alike from a request id."""
    digest = hashlib.sha256(b"hart seed\n" + request_id.encode()).digest()
    return int.from_bytes(digest[:8], "little") & _DRAWN_MASK


def draw_seed() -> int:
    """A fresh 53-bit seed."""
    return secrets.randbits(DRAWN_SEED_BITS)
