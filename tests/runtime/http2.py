"""Raw HTTP/2 frames and header fields, for peers that misbehave (RFC 9113, RFC 7541)."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing (RFC 7541, 6.2.2), for lengths under 2^14."""

    def text(data: bytes) -> bytes:
        if len(data) < 127:
            return bytes([len(data)]) + data
        rest = len(data) - 127
        return bytes([127, (rest & 0x7F) | 0x80, rest >> 7]) + data

    return b"\x00" + text(name) + text(value)
