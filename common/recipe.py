"""A recipe: what an image can be drawn again with, as JSON in the image file's metadata.

Writes it into finished PNG, JPEG and WEBP files without an imaging library and without touching the pixels: a PNG text
chunk, EXIF in the others.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict, dataclass, field

from common.image_formats import JPEG, PNG
from common.image_header import ImageHeader, inspect
from common.limits import MAX_RECIPE_BYTES

SOFTWARE = "HART cluster"
PNG_KEY = "recipe"
EXIF_DESCRIPTION, EXIF_SOFTWARE = 0x010E, 0x0131
_EXIF_ASCII = 2
_WEBP_EXIF_FLAG, _WEBP_ALPHA_FLAG = 0x08, 0x10
_PNG_HEADER = 33  # signature and IHDR


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
        return data[:_PNG_HEADER] + _png_text("Software", SOFTWARE) + _png_text(PNG_KEY, recipe) + data[_PNG_HEADER:]
    if header.format is JPEG:
        return _into_jpeg(data, b"Exif\0\0" + _exif(recipe))
    return _into_webp(data, _exif(recipe), header)


def _png_text(key: str, text: str) -> bytes:
    body = b"tEXt" + key.encode("latin-1") + b"\0" + text.encode("ascii")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _exif(text: str) -> bytes:
    """A little-endian TIFF structure with one directory of two ASCII entries."""
    values = [(EXIF_DESCRIPTION, text.encode("ascii") + b"\0"), (EXIF_SOFTWARE, SOFTWARE.encode("ascii") + b"\0")]
    at = 8 + 2 + 12 * len(values) + 4
    directory, contents = struct.pack("<H", len(values)), b""
    for tag, value in values:
        directory += struct.pack("<HHII", tag, _EXIF_ASCII, len(value), at + len(contents))
        contents += value + b"\0" * (len(value) % 2)
    return struct.pack("<2sHI", b"II", 42, 8) + directory + struct.pack("<I", 0) + contents


def _into_jpeg(data: bytes, exif: bytes) -> bytes:
    """APP1 behind a JFIF header, which must come first, where there is one."""
    at = 4 + struct.unpack(">H", data[4:6])[0] if data[2:4] == b"\xff\xe0" else 2
    return data[:at] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[at:]


def _into_webp(data: bytes, exif: bytes, header: ImageHeader) -> bytes:
    chunks = data[12:]
    if chunks[:4] == b"VP8X":
        flags, chunks = chunks[8] | _WEBP_EXIF_FLAG, chunks[18:]
    else:
        has_alpha = chunks[:4] == b"VP8L" and bool(chunks[12] & 0x10)
        flags = _WEBP_EXIF_FLAG | (_WEBP_ALPHA_FLAG if has_alpha else 0)
    canvas = (header.width - 1).to_bytes(3, "little") + (header.height - 1).to_bytes(3, "little")
    whole = _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + canvas) + chunks + _chunk(b"EXIF", exif)
    return b"RIFF" + struct.pack("<I", 4 + len(whole)) + b"WEBP" + whole


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
