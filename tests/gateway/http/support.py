"""A gateway with its HTTP port before fake stages, and what clients send to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from gateway.http.server import HttpServer
from tests.gateway.support import RunningGateway, running_gateway

PATH = "/v1/images/generations"
GENERATE = {"prompt": "a red heart", "seed": 7}


@dataclass
class HttpFront:
    """A gateway and a client of its HTTP port."""

    front: RunningGateway
    client: httpx2.AsyncClient

    @property
    def port(self) -> int:
        """The HTTP port."""
        return port_of(self.front)

    @property
    def connections(self) -> int:
        """Open connections of the HTTP port."""
        return len(server_of(self.front)._server.server_state.connections)

    async def generate(self, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
        """The response to a request for images."""
        return await self.client.post(PATH, json={**GENERATE, **fields}, headers=headers or {})

    async def events(self, **fields: Any) -> list[tuple[str, dict[str, Any]]]:
        """The events of a streamed request: their types and data."""
        response = await self.generate(stream=True, **fields)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "text/event-stream"
        return parse_events(response.text)


def server_of(running: RunningGateway) -> HttpServer:
    """The HTTP server: it is among what the gateway closes at its end."""
    stops = [getattr(stop, "__self__", None) for stop in running.app._stops]
    return next(one for one in stops if isinstance(one, HttpServer))


def port_of(running: RunningGateway) -> int:
    return server_of(running).port


def parse_events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream."""
    found = []
    for block in filter(None, text.split("\n\n")):
        event, data = block.split("\n")
        found.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """The error of a response."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    error: dict[str, Any] = body["error"]
    return error


@asynccontextmanager
async def http_front(**settings: Any) -> AsyncIterator[HttpFront]:
    """A running gateway whose HTTP API is on."""
    async with running_gateway(http_port=0, **settings) as running:
        base = f"http://127.0.0.1:{port_of(running)}"
        async with httpx2.AsyncClient(base_url=base, timeout=60, trust_env=False) as client:
            yield HttpFront(running, client)


@asynccontextmanager
async def connection(port: int, sent: bytes = b"") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection on which these bytes were sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def head(length: int | None, **headers: str) -> bytes:
    """The head of a request for images."""
    lines = [f"POST {PATH} HTTP/1.1", "Host: x", "Content-Type: application/json"]
    lines += [f"Content-Length: {length}"] if length is not None else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def whole(**fields: Any) -> bytes:
    """A whole request for images."""
    body = json.dumps({**GENERATE, **fields}).encode()
    return head(len(body)) + body
