"""Serves the HTTP API with uvicorn in the process's own event loop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from gateway.config import GatewaySettings
from gateway.http.connection import BoundedConnection
from runtime import tls
from runtime.server.side_port import PortTaken
from runtime.settings import as_settings_error

log = logging.getLogger(__name__)
BACKLOG = 1024
STOP_SECONDS = 1
"""Max time for the last responses to reach their clients after the drain."""


class _Server(uvicorn.Server):
    """A server that leaves the process's signals alone."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Do nothing: the process's own handlers drain it."""
        yield


class HttpServer:
    """The HTTP port of a gateway. Responses of `application` are refused or served from `start` to `stop`."""

    def __init__(self, application: ASGIApp, settings: GatewaySettings) -> None:
        self._settings = settings
        self.port = settings.http_port or 0
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # below: what any client can provoke
        config = uvicorn.Config(
            application,
            http=BoundedConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=max(1, int(settings.keepalive_seconds)),
            timeout_graceful_shutdown=STOP_SECONDS,
            h11_max_incomplete_event_size=settings.max_metadata_bytes,
        )
        config.load()
        if settings.tls:
            files = tls.Files(settings.tls_cert, settings.tls_key, settings.tls_ca)
            with as_settings_error(OSError, ValueError):
                config.ssl = tls.https_context(files)
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the port. Raises PortTaken."""
        listening = self._bind()
        self.port = listening.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]))
        while not self._server.started:
            await asyncio.wait([self._task], timeout=0.01)
            if self._task.done():
                self._task.result()
                raise RuntimeError("the HTTP server ended")
        log.info("listening", extra={"http_port": self.port})

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task

    def _bind(self) -> socket.socket:
        host = self._settings.host.strip("[]")
        try:
            family = socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((host, self.port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise PortTaken("HART_HTTP_PORT", f"{self._settings.host}:{self.port}") from error
