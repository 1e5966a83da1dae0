"""Calls on a connection that reads no answer."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.gateway.calls import request
from tests.runtime.http2 import PREFACE, frame, literal

NO_WINDOW = frame(4, 0, 0, struct.pack(">HI", 4, 0))
"""SETTINGS with an initial window of 0: no answer is read."""


OPENED = frame(4, 1, 0, b"")


def headers(method: str) -> bytes:
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", f"/hart.v1.Images/{method}".encode()),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
    return b"".join(literal(name, value) for name, value in fields)


def call(stream: int, method: str, message: Any) -> bytes:
    data = message.SerializeToString()
    return frame(1, 4, stream, headers(method)) + frame(0, 1, stream, b"\0" + struct.pack(">I", len(data)) + data)


@asynccontextmanager
async def unread(port: int, calls: int, method: str, **fields: Any) -> AsyncIterator[None]:
    """So many calls on one connection, of which no answer is read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + NO_WINDOW + OPENED)
    for number in range(calls):
        writer.write(call(2 * number + 1, method, request(**fields)))
    drain = asyncio.create_task(reader.read(-1))  # the frames that need no window
    try:
        yield
    finally:
        drain.cancel()
        writer.transport.abort()
