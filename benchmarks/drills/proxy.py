"""A TCP proxy whose connections can be cut. Knows no protocol."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK = 2**14
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends a reset


class Proxy:
    """Passes connections on to `port` of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._budget: int | None = None
        self.address = ""
        self.cuts = 0

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    def cut_after(self, sent: int) -> None:
        """Reset every connection when so many more bytes have come from the server: in the middle of an answer."""
        self._budget = sent

    def cut(self) -> None:
        """Reset every connection now."""
        self._budget = None
        for pair in list(self._pairs):
            for writer in pair:
                with suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
            self.cuts += 1

    async def close(self) -> None:
        """End everything."""
        self.cut()
        if self._server:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        pair = (writer, far_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer, counted=True))
        except asyncio.CancelledError:
            return  # when the loop ends; asyncio's streams would print a traceback
        finally:
            self._pairs.discard(pair)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: bool = False) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if counted and self._budget is not None:
                    data, self._budget = data[: self._budget], self._budget - len(data)
                writer.write(data)
                await writer.drain()
                if self._budget is not None and self._budget <= 0:
                    self.cut()
                    return
        with suppress(OSError):
            writer.close()


async def cut(proxy: Proxy) -> None:
    """Cut the proxy's connections at some point of what is sent next, or at once."""
    if random.random() < 0.5:
        proxy.cut_after(random.randint(1, 20_000))
    else:
        proxy.cut()


@asynccontextmanager
async def proxies(ports: list[int]) -> AsyncIterator[list[Proxy]]:
    """One proxy before each port."""
    made = [Proxy(port) for port in ports]
    for one in made:
        await one.open()
    try:
        yield made
    finally:
        for one in made:
            await one.close()
