"""Pixels to image files with their recipe in them. Knows no tensors."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from PIL import Image

from common import recipe as recipes
from common.image_formats import NAMES, PNG, WEBP
from common.limits import DEFAULT_QUALITY, MAX_QUALITY, MIN_QUALITY, is_quality
from model.errors import NotFiniteError, SettingError

PNG_COMPRESSION = 1
"""Of isal's levels 0 to 3: as small as 2 and never slower (benchmarks/encode.py)."""
WEBP_METHOD = 2
"""Of 0 to 6, where Pillow's default is 4: twice as fast for files 5% smaller to 4% larger (benchmarks/encode.py)."""

Pixels = npt.NDArray[np.uint8]


def to_pixels(picture: npt.NDArray[np.float32]) -> Pixels:
    """A picture (..., 3, H, W) in [0, 1] to (..., H, W, 3) 8-bit values: floor(255·x). Raises NotFiniteError."""
    if not np.isfinite(picture).all():
        raise NotFiniteError("the picture")
    return np.moveaxis((picture * 255).astype(np.uint8), -3, -1)


def check_encoding(format: str, quality: int) -> None:
    """Raises SettingError for a format or a quality that `encode` would refuse."""
    if format not in NAMES:
        raise SettingError("format", f"{format!r}: expected one of {', '.join(NAMES)}")
    if not is_quality(quality):
        raise SettingError("quality", f"{quality}: expected {MIN_QUALITY} to {MAX_QUALITY}")


def encode(pixels: Pixels, format: str, quality: int = DEFAULT_QUALITY, recipe: str | None = None) -> bytes:
    """Pixels (H, W, 3) to an image file; `recipe` is JSON that goes into its metadata (common.recipe).

    `quality` is for formats that have one. Raises SettingError for another format or quality.
    """
    check_encoding(format, quality)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise SettingError("pixels", f"{pixels.dtype} {pixels.shape}: expected uint8 (H, W, 3)")
    data = png(pixels) if format == PNG.name else _by_pillow(pixels, format, quality)
    return data if recipe is None else recipes.write(data, recipe)


def _by_pillow(pixels: Pixels, format: str, quality: int) -> bytes:
    options: dict[str, Any] = {"quality": quality} | ({"method": WEBP_METHOD} if format == WEBP.name else {})
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def _deflate(rows: Pixels) -> bytes:
    return isal_zlib.compress(rows, PNG_COMPRESSION)


def png(pixels: Pixels, deflate: Callable[[Pixels], bytes] = _deflate) -> bytes:
    """A PNG with the `up` filter, deflated by isal (docs/performance.md compares)."""
    height, width, _ = pixels.shape
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = 2  # each row holds its difference to the one above
    flat = pixels.reshape(height, 3 * width)
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", deflate(rows)), (b"IEND", b"")]
    return PNG.signature[0][1] + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
