"""The format and size that an image file's header states. Decodes no pixels."""

from __future__ import annotations

import struct
from typing import NamedTuple

from common.image_formats import JPEG, NAMES, PNG, ImageFormat, format_of

MAX_SEGMENTS = 1000
"""Of a JPEG before its frame header. A file has a dozen; one of millions would occupy the event loop."""


class ImageHeader(NamedTuple):
    """What the first bytes of a file say."""

    format: ImageFormat
    width: int
    """Pixels."""
    height: int
    """Pixels."""


def inspect(data: bytes) -> ImageHeader:
    """Raises ValueError where the bytes are no file of a known format, or end within its header."""
    format = format_of(data)
    if format is not None:
        size = _png if format is PNG else _jpeg if format is JPEG else _webp
        try:
            return ImageHeader(format, *size(data))
        except (struct.error, IndexError):
            pass
    raise ValueError(f"{len(data)} bytes that are no {', '.join(NAMES)} file")


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    for _ in range(MAX_SEGMENTS):
        if data[at] != 0xFF:
            break
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header; the three are tables
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + length
    raise IndexError("no frame header")


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF
