"""Encodes numpy pixels as image files with an embedded recipe."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from isal import isal_zlib
from PIL import Image

from common import provenance
from common import recipe as recipes
from common.image_formats import NAMES, PNG, WEBP
from common.limits import DEFAULT_QUALITY, MAX_QUALITY, MIN_QUALITY, is_quality
from model.errors import SettingError
from model.pixels import Pixels

PNG_COMPRESSION = 1
"""isal level, 0 to 3. Files are as small as at level 2, and encoding is not slower (benchmarks/encode.py)."""
WEBP_METHOD = 2
"""0 to 6; Pillow's default is 4. 2 is twice as fast; files are 5% smaller to 4% larger (benchmarks/encode.py)."""


def check_encoding(format: str, quality: int) -> None:
    """Raises SettingError for an unsupported format or quality, before any pixels exist."""
    if format not in NAMES:
        raise SettingError("format", f"{format!r}: expected one of {', '.join(NAMES)}")
    if not is_quality(quality):
        raise SettingError("quality", f"{quality}: expected {MIN_QUALITY} to {MAX_QUALITY}")


def encode(
    pixels: Pixels, format: str, quality: int = DEFAULT_QUALITY, recipe: str | None = None, *, marked: bool = True
) -> bytes:
    """Pixels (H, W, 3) to an image file. `recipe` is JSON for its metadata (common.recipe). `marked`: with the mark of
    generated images (common.provenance).

    `quality` applies to JPEG and WEBP. Raises SettingError for an unsupported format or quality, or invalid pixels.
    """
    check_encoding(format, quality)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise SettingError("pixels", f"{pixels.dtype} {pixels.shape}: expected uint8 (H, W, 3)")
    data = png(pixels) if format == PNG.name else _by_pillow(pixels, format, quality)
    data = provenance.mark(data) if marked else data
    return data if recipe is None else recipes.write(data, recipe)


def _by_pillow(pixels: Pixels, format: str, quality: int) -> bytes:
    options: dict[str, Any] = {"quality": quality} | ({"method": WEBP_METHOD} if format == WEBP.name else {})
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def _deflate(rows: Pixels) -> bytes:
    return isal_zlib.compress(rows, PNG_COMPRESSION)


def png(pixels: Pixels, deflate: Callable[[Pixels], bytes] = _deflate) -> bytes:
    """A PNG with the `up` filter, deflated by isal (measured in docs/performance.md)."""
    height, width, _ = pixels.shape
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = 2  # the `up` filter: each row holds its difference from the row above
    flat = pixels.reshape(height, 3 * width)
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", deflate(rows)), (b"IEND", b"")]
    return PNG.signature[0][1] + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
