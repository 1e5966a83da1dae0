"""A picture's digest from its stages' digests. Knows no checkpoint; equal to what the one-process pipeline computes."""

from __future__ import annotations

import hashlib


def combine(*, generator: str, text_encoder: str, decoder: str) -> str:
    """One SHA-256 (hexadecimal) over the digests of the parts that a picture depends on; "" where one is not known,
    as of a stage on a foreign server."""
    parts = {"llm": generator, "text_encoder": text_encoder, "tokenizer": decoder}
    if not all(parts.values()):
        return ""
    compatible = "".join(f"{name}={digest}\n" for name, digest in sorted(parts.items()))
    return hashlib.sha256(compatible.encode()).hexdigest()
