"""A raw HTTP/2 connection that sends keepalive pings."""

from __future__ import annotations

import asyncio

from tests.runtime.http2 import PREFACE, frame

GOAWAY = 7


class Pinger:
    """A connection of raw HTTP/2 that sends pings, and whether it received GOAWAY."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.gone = False
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, port: int) -> Pinger:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE + frame(4, 0, 0, b"") + frame(4, 1, 0, b""))
        return cls(reader, writer)

    async def _read(self) -> None:
        while True:
            try:
                head = await self._reader.readexactly(9)
                await self._reader.readexactly(int.from_bytes(head[:3]))
            except (asyncio.IncompleteReadError, ConnectionError):
                self.gone = True
                return
            self.gone |= head[3] == GOAWAY

    async def ping(self, times: int, every: float) -> None:
        for _ in range(times):
            self._writer.write(frame(6, 0, 0, b"12345678"))
            await asyncio.sleep(every)

    def close(self) -> None:
        self._task.cancel()
        self._writer.transport.abort()
