"""Image files of every kind that our encoders and other servers produce."""

import io
from typing import Any

from PIL import Image

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {"quality": 92}),
    "webp": ("WEBP", {}),
    "webp lossless": ("WEBP", {"lossless": True}),
    "webp with exif": ("WEBP", {"exif": b"Exif\0\0"}),
}


def file(kind: str, size: tuple[int, int] = (33, 17)) -> bytes:
    """An image file of noise."""
    format, options = KINDS[kind]
    out = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(out, format, **options)
    return out.getvalue()
