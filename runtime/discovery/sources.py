"""Sources of endpoints: each yields the whole set, at first and whenever it changes. Knows no replica's health.

A source that fails keeps quiet: who listens goes on with the last known set.
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
    """Anything that knows where replicas are."""

    def watch(self) -> AsyncGenerator[Endpoints, None]:
        """The set of endpoints now, then again after each change."""


class StaticSource:
    """A list that never changes."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints

    async def watch(self) -> AsyncGenerator[Endpoints, None]:
        """The list, once."""
        yield self.endpoints


class PolledSource:
    """Base of sources that are asked again every `every` seconds."""

    def __init__(self, every: float) -> None:
        self._every = every

    async def read(self) -> Endpoints:
        """The endpoints now. Raises OSError or ValueError where they cannot be known."""
        raise NotImplementedError

    async def watch(self) -> AsyncGenerator[Endpoints, None]:
        """The endpoints whenever they differ from the last ones; failures are logged once each."""
        last: Endpoints | None = None
        complaint = ""
        while True:
            try:
                found = await self.read()
            except (OSError, ValueError) as error:
                if str(error) != complaint:
                    complaint = str(error)
                    log.warning("endpoints cannot be read, the last known are kept: %s", complaint)
            else:
                complaint = ""
                if found != last:
                    last = found
                    yield found
            await asyncio.sleep(self._every)


class FileSource(PolledSource):
    """A file with one endpoint a line; an empty file means none, a missing or broken one changes nothing."""

    def __init__(self, path: Path, every: float = 0.5) -> None:
        super().__init__(every)
        self._path = path

    async def read(self) -> Endpoints:
        """The file's endpoints."""
        return parse_all(await asyncio.to_thread(self._path.read_text, "utf-8-sig"))


class DnsSource(PolledSource):
    """Every address behind a name, such as a headless Service's. A name that does not resolve changes nothing."""

    def __init__(self, host: str, port: int, model: str = "", every: float = 2.0) -> None:
        super().__init__(every)
        self._host = host
        self._port = port
        self._model = model

    async def read(self) -> Endpoints:
        """The addresses that the resolver gives now."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return frozenset(Endpoint(_join(str(info[4][0]), self._port), self._model, self._host) for info in found)


OTHERS = "in place of a list file:///path, dns:///host:port or kubernetes://namespace/service:port"


def source(text: str) -> Source:
    """The source that a setting describes. Raises ValueError with the text where it describes none.

    "host:port,unix:/path,oip://host:port/model" (static) · "file:///path" · "dns:///host:port" ·
    "kubernetes://namespace/service:port" (a number or a port's name); the last two with "?oip=model" for servers of
    the Open Inference Protocol.
    """
    scheme = text.partition(":")[0]
    if scheme not in ("file", "dns", "kubernetes"):
        try:
            endpoints = parse_all(text)
        except ValueError as error:
            raise ValueError(f"{error}; or {OTHERS}") from None
        if not endpoints:
            raise ValueError(f"{text!r} names no endpoint")
        return StaticSource(endpoints)
    parts = urlsplit(text)
    if scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise ValueError(f"{text!r} is no source: file:///path is wanted")
        return FileSource(Path(parts.path))
    model = parse_qs(parts.query).get("oip", [""])[0]
    host, _, port = parts.path.strip("/").rpartition(":")
    if not host or not port or (scheme == "kubernetes" and not parts.netloc):
        raise ValueError(f"{text!r} is no source: dns:///host:port or kubernetes://namespace/service:port is wanted")
    if port.isdigit() and not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: there is no port {port}")
    if scheme == "kubernetes":
        from runtime.discovery.kubernetes import KubernetesSource

        return KubernetesSource(parts.netloc, host, port, model)
    if not port.isdigit():
        raise ValueError(f"{text!r}: the port {port!r} is no number")
    return DnsSource(host, int(port), model)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
