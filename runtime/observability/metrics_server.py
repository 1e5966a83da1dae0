"""The HTTP port that Prometheus reads. Knows a registry, and that anybody may knock.

Not prometheus-client's own server: there each connection has a thread for as long as it likes to say nothing.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

MAX_CONNECTIONS = 16  # connections at the same time; one more closes the oldest, which a scrape never is for long
READ_TIMEOUT = 5.0  # that a caller may take between two pieces of its request


class _Handler(WSGIRequestHandler):
    timeout = READ_TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: scrapes are no news."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        self._connections: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection on a thread, at the oldest one's expense where there are too many."""
        with self._lock:
            self._connections[request] = None
            oldest = next(iter(self._connections)) if len(self._connections) > MAX_CONNECTIONS else None
            if oldest is not None:
                del self._connections[oldest]
                _end(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """A connection has ended."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: who does not speak HTTP, or leaves, is no news either."""


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it


class MetricsServer:
    """Serves a registry's metrics on a thread of its own. Raises OSError where the port is taken."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._server = _Server(host, port)
        self._server.set_app(make_wsgi_app(registry))
        self.port: int = self._server.server_port
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop answering, within half a second; the library's server looks that often, and nobody waits for it."""
        threading.Thread(target=self._end, daemon=True).start()

    def _end(self) -> None:
        self._server.shutdown()
        self._server.server_close()
