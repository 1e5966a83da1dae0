"""The size that an image file's header states: PNG, JPEG, WEBP. Decodes nothing."""

from __future__ import annotations

import struct

from hart.v1 import decoder_pb2

MAX_SEGMENTS = 1000
"""Of a JPEG before its frame header. A file has a dozen; one of millions would keep the event loop."""
Found = tuple["decoder_pb2.ImageFormat.ValueType", int, int]


def inspect(data: bytes) -> Found:
    """Format, width and height in pixels. Raises ValueError where the bytes are none of the three."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack(">II", data[16:24])
            return decoder_pb2.IMAGE_FORMAT_PNG, width, height
        if data.startswith(b"\xff\xd8"):
            return decoder_pb2.IMAGE_FORMAT_JPEG, *_jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return decoder_pb2.IMAGE_FORMAT_WEBP, *_webp(data)
    except (struct.error, IndexError):
        pass
    raise ValueError(f"{len(data)} bytes that are no PNG, JPEG or WEBP file")


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
