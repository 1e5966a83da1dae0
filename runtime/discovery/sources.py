"""Sources of endpoints. Each yields the whole set: first the current one, then each change.

A source yields nothing while it fails, so that its consumer keeps the last known set.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from runtime.discovery.endpoint import Endpoint, parse_all

log = logging.getLogger(__name__)
Endpoints = frozenset[Endpoint]


class Source(Protocol):
    """A source of endpoints."""

    def watch(self) -> AsyncGenerator[Endpoints, None]:
        """The current set of endpoints, then each change."""


class StaticSource:
    """A constant list."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints

    async def watch(self) -> AsyncGenerator[Endpoints, None]:
        """The list, once."""
        yield self.endpoints


class PolledSource:
    """Base of sources that are polled every `every` seconds."""

    def __init__(self, every: float) -> None:
        self._every = every

    async def read(self) -> Endpoints:
        """The current endpoints. Raises OSError or ValueError if they cannot be read."""
        raise NotImplementedError

    async def watch(self) -> AsyncGenerator[Endpoints, None]:
        """The endpoints after each change. Each distinct failure is logged once."""
        last: Endpoints | None = None
        failure = ""
        while True:
            try:
                found = await self.read()
            except (OSError, ValueError) as error:
                if str(error) != failure:
                    failure = str(error)
                    log.warning("cannot read endpoints, keeping the last known ones: %s", failure)
            else:
                failure = ""
                if found != last:
                    last = found
                    yield found
            await asyncio.sleep(self._every)


class FileSource(PolledSource):
    """A file with one endpoint per line. An empty file means no endpoints; a missing or invalid one changes nothing."""

    def __init__(self, path: Path, every: float = 0.5) -> None:
        super().__init__(every)
        self._path = path

    async def read(self) -> Endpoints:
        """The file's endpoints."""
        return parse_all(await asyncio.to_thread(self._path.read_text, "utf-8-sig"))


class DnsSource(PolledSource):
    """All addresses of a DNS name, e.g. of a headless Service. A name that does not resolve changes nothing."""

    def __init__(self, host: str, port: int, model: str = "", every: float = 2.0) -> None:
        super().__init__(every)
        self._host = host
        self._port = port
        self._model = model

    async def read(self) -> Endpoints:
        """The addresses that the resolver returns."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return frozenset(Endpoint(_join(str(info[4][0]), self._port), self._model, self._host) for info in found)


OTHERS = "instead of a list: file:///path, dns:///host:port or kubernetes://namespace/service:port"


def source(text: str) -> Source:
    """Parse a source from a setting. Raises ValueError, which quotes the text.

    "host:port,unix:/path,oip://host:port/model" (static) · "file:///path" · "dns:///host:port" ·
    "kubernetes://namespace/service:port" (port: a number or a name). The last two take "?oip=model" for servers of
    the Open Inference Protocol.
    """
    scheme = text.partition(":")[0]
    if scheme not in ("file", "dns", "kubernetes"):
        try:
            endpoints = parse_all(text)
        except ValueError as error:
            raise ValueError(f"{error}; or {OTHERS}") from None
        if not endpoints:
            raise ValueError(f"{text!r} has no endpoint")
        return StaticSource(endpoints)
    parts = urlsplit(text)
    if scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise ValueError(f"{text!r} is not a source: expected file:///path")
        return FileSource(Path(parts.path))
    model = parse_qs(parts.query).get("oip", [""])[0]
    host, _, port = parts.path.strip("/").rpartition(":")
    if not host or not port or (scheme == "kubernetes" and not parts.netloc):
        raise ValueError(f"{text!r} is not a source: expected dns:///host:port or kubernetes://namespace/service:port")
    if port.isdigit() and not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: port {port} is not 1 to 65535")
    if scheme == "kubernetes":
        from runtime.discovery.kubernetes import KubernetesSource

        return KubernetesSource(parts.netloc, host, port, model)
    if not port.isdigit():
        raise ValueError(f"{text!r}: port {port!r} is not a number")
    return DnsSource(host, int(port), model)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
