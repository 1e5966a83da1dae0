"""A recipe: what an image can be drawn again with, as JSON in the image file's metadata.

Writes it into finished PNG, JPEG and WEBP files without an imaging library and without touching the pixels: a PNG text
chunk, EXIF in the others.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field

from common.image_chunks import WEBP_EXIF_FLAG, add_jpeg_segment, add_png_chunk, add_webp_chunk
from common.image_formats import JPEG, PNG
from common.image_header import inspect
from common.limits import MAX_RECIPE_BYTES

SOFTWARE = "HART cluster"
PNG_KEY = "recipe"
EXIF_DESCRIPTION, EXIF_SOFTWARE = 0x010E, 0x0131
_EXIF_ASCII = 2


@dataclass(frozen=True)
class Recipe:
    """What an image can be drawn again with."""

    prompt: str
    """The prompt that was drawn: the replacement, where an unsafe one was replaced."""
    seed: int
    guidance: float
    more_smooth: bool
    top_p: float
    residual_temperature: float
    model: str
    digest: str
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """ASCII JSON with a fixed order of keys."""
        return json.dumps(asdict(self), sort_keys=True)


def write(data: bytes, recipe: str) -> bytes:
    """The image file with the recipe's JSON in it.

    Raises ValueError where it is no PNG, JPEG or WEBP, or where the recipe is no ASCII or longer than MAX_RECIPE_BYTES.
    """
    if len(recipe) > MAX_RECIPE_BYTES:
        raise ValueError(f"a recipe of {len(recipe)} bytes; at most {MAX_RECIPE_BYTES} fit into an image file")
    try:
        return _write(data, recipe)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"the recipe cannot be written into {len(data)} bytes: {error}") from None


def _write(data: bytes, recipe: str) -> bytes:
    header = inspect(data)
    if header.format is PNG:
        data = add_png_chunk(data, b"tEXt", _png_text(PNG_KEY, recipe))
        return add_png_chunk(data, b"tEXt", _png_text("Software", SOFTWARE))
    if header.format is JPEG:
        return add_jpeg_segment(data, b"Exif\0\0" + _exif(recipe))
    return add_webp_chunk(data, b"EXIF", _exif(recipe), WEBP_EXIF_FLAG, header)


def _png_text(key: str, text: str) -> bytes:
    return key.encode("latin-1") + b"\0" + text.encode("ascii")


def _exif(text: str) -> bytes:
    """A little-endian TIFF structure with one directory of two ASCII entries."""
    values = [(EXIF_DESCRIPTION, text.encode("ascii") + b"\0"), (EXIF_SOFTWARE, SOFTWARE.encode("ascii") + b"\0")]
    at = 8 + 2 + 12 * len(values) + 4
    directory, contents = struct.pack("<H", len(values)), b""
    for tag, value in values:
        directory += struct.pack("<HHII", tag, _EXIF_ASCII, len(value), at + len(contents))
        contents += value + b"\0" * (len(value) % 2)
    return struct.pack("<2sHI", b"II", 42, 8) + directory + struct.pack("<I", 0) + contents
