"""Writes a picture's recipe into a finished file, for decoders that cannot: servers of the Open Inference Protocol.

The same places and the same JSON as the decoder stage: a PNG text chunk, EXIF elsewhere. Decodes no pixels.
"""

from __future__ import annotations

import json
import struct
import zlib

from hart.v1 import decoder_pb2

from gateway.imagesize import inspect

SOFTWARE = "HART cluster"
PNG_KEY = "recipe"
_EXIF_DESCRIPTION, _EXIF_SOFTWARE, _ASCII = 0x010E, 0x0131, 2
_WEBP_EXIF_FLAG, _WEBP_ALPHA_FLAG = 0x08, 0x10
_PNG_HEADER = 33  # signature and IHDR


def to_json(recipe: decoder_pb2.Recipe) -> str:
    """ASCII JSON with a fixed order of keys."""
    fields = {
        "prompt": recipe.prompt,
        "seed": recipe.seed,
        "guidance": recipe.guidance,
        "more_smooth": recipe.more_smooth,
        "top_p": recipe.top_p,
        "model": recipe.model.name,
        "digest": recipe.model.digest,
        "versions": dict(recipe.versions),
    }
    return json.dumps(fields, sort_keys=True)


def write(data: bytes, recipe: decoder_pb2.Recipe) -> bytes:
    """The file with the recipe in it. Raises ValueError where it is no PNG, JPEG or WEBP, or has no room for it."""
    try:
        return _write(data, recipe)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"the recipe cannot be written into {len(data)} bytes: {error}") from None


def _write(data: bytes, recipe: decoder_pb2.Recipe) -> bytes:
    format, width, height = inspect(data)
    text = to_json(recipe)
    if format == decoder_pb2.IMAGE_FORMAT_PNG:
        return data[:_PNG_HEADER] + _png_text("Software", SOFTWARE) + _png_text(PNG_KEY, text) + data[_PNG_HEADER:]
    if format == decoder_pb2.IMAGE_FORMAT_JPEG:
        return _into_jpeg(data, b"Exif\0\0" + _exif(text))
    return _into_webp(data, _exif(text), width, height)


def _png_text(key: str, text: str) -> bytes:
    body = b"tEXt" + key.encode("latin-1") + b"\0" + text.encode("ascii")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _exif(text: str) -> bytes:
    """A little-endian TIFF structure with one directory of two ASCII entries."""
    values = [(_EXIF_DESCRIPTION, text.encode() + b"\0"), (_EXIF_SOFTWARE, SOFTWARE.encode() + b"\0")]
    at = 8 + 2 + 12 * len(values) + 4
    directory, contents = struct.pack("<H", len(values)), b""
    for tag, value in values:
        directory += struct.pack("<HHII", tag, _ASCII, len(value), at + len(contents))
        contents += value + b"\0" * (len(value) % 2)
    return struct.pack("<2sHI", b"II", 42, 8) + directory + struct.pack("<I", 0) + contents


def _into_jpeg(data: bytes, exif: bytes) -> bytes:
    """APP1 behind a JFIF header, which must come first, where there is one."""
    at = 4 + struct.unpack(">H", data[4:6])[0] if data[2:4] == b"\xff\xe0" else 2
    return data[:at] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[at:]


def _into_webp(data: bytes, exif: bytes, width: int, height: int) -> bytes:
    chunks = data[12:]
    if chunks[:4] == b"VP8X":
        flags, chunks = chunks[8] | _WEBP_EXIF_FLAG, chunks[18:]
    else:
        has_alpha = chunks[:4] == b"VP8L" and bool(chunks[12] & 0x10)
        flags = _WEBP_EXIF_FLAG | (_WEBP_ALPHA_FLAG if has_alpha else 0)
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    complete = _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + canvas) + chunks + _chunk(b"EXIF", exif)
    return b"RIFF" + struct.pack("<I", 4 + len(complete)) + b"WEBP" + complete


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
