"""Puts metadata into finished PNG, JPEG and WEBP files, without an imaging library and without touching the pixels."""

from __future__ import annotations

import struct
import zlib

from common.image_header import ImageHeader

WEBP_EXIF_FLAG, WEBP_XMP_FLAG, _WEBP_ALPHA_FLAG = 0x08, 0x04, 0x10
_PNG_HEADER = 33
"""Length of the signature and IHDR."""


def add_png_chunk(data: bytes, name: bytes, body: bytes) -> bytes:
    """The PNG file with one more chunk, right behind its header."""
    whole = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return data[:_PNG_HEADER] + whole + data[_PNG_HEADER:]


def add_jpeg_segment(data: bytes, body: bytes) -> bytes:
    """The JPEG file with one more APP1 segment, behind a JFIF header, which must come first, where there is one.
    Raises struct.error for a body over 65,533 bytes."""
    at = 4 + struct.unpack(">H", data[4:6])[0] if data[2:4] == b"\xff\xe0" else 2
    return data[:at] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[at:]


def add_webp_chunk(data: bytes, name: bytes, body: bytes, flag: int, header: ImageHeader) -> bytes:
    """The WEBP file with one more chunk at its end, which `flag` of its extended header announces."""
    chunks = data[12:]
    if chunks[:4] == b"VP8X":
        flags, chunks = chunks[8] | flag, chunks[18:]
    else:
        has_alpha = chunks[:4] == b"VP8L" and bool(chunks[12] & 0x10)
        flags = flag | (_WEBP_ALPHA_FLAG if has_alpha else 0)
    canvas = (header.width - 1).to_bytes(3, "little") + (header.height - 1).to_bytes(3, "little")
    whole = _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + canvas) + chunks + _chunk(name, body)
    return b"RIFF" + struct.pack("<I", 4 + len(whole)) + b"WEBP" + whole


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
