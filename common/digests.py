"""The digest of a checkpoint: one over the digests of the parts that an image depends on."""

from __future__ import annotations

import hashlib

from common.stages import AR_GENERATOR, DECODER, TEXT_ENCODER


def combine(*, generator: str, text_encoder: str, decoder: str) -> str:
    """SHA-256 (hexadecimal) over the digests of three stages' parts; "" where one is unknown, as of a stage on a
    foreign server."""
    parts = {AR_GENERATOR.part: generator, TEXT_ENCODER.part: text_encoder, DECODER.part: decoder}
    if not all(parts.values()):
        return ""
    lines = "".join(f"{name}={digest}\n" for name, digest in sorted(parts.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
