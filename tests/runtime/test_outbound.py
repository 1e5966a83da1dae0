"""What this process fetches and whom it calls on this machine goes through no proxy, and stays encrypted."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.observability.telemetry import Telemetry
from runtime.outbound import opener


@contextmanager
def web() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"here")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_this_machine_is_asked_without_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with web() as host:
        assert opener(f"http://{host}/").open(f"http://{host}/", timeout=10).read() == b"here"
        with pytest.raises(OSError, match="refused"):
            opener("http://192.0.2.1/").open("http://192.0.2.1/", timeout=10)


def test_a_redirect_does_not_leave_encryption() -> None:
    handlers: list[object] = vars(opener("https://x/"))["handlers"]
    redirects = next(h for h in handlers if isinstance(h, urllib.request.HTTPRedirectHandler))
    asked = urllib.request.Request("https://issuer.example/jwks")
    with pytest.raises(OSError, match="from https to another scheme"):
        redirects.redirect_request(asked, None, 302, "", {}, "http://issuer.example/jwks")  # type: ignore[arg-type]
    followed = redirects.redirect_request(asked, None, 302, "", {}, "https://other.example/jwks")  # type: ignore[arg-type]
    assert followed is not None


@pytest.mark.parametrize(("endpoint", "direct"), [("http://127.0.0.1:4317", True), ("http://collector:4317", False)])
def test_a_collector_on_this_machine_is_called_without_a_proxy(
    endpoint: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    def open_channel(target: str, options: Any = (), **_: Any) -> Any:
        opened.append(dict(options or ()))
        return SimpleNamespace(unary_unary=lambda *_, **__: None, close=lambda: None)

    monkeypatch.setattr("opentelemetry.exporter.otlp.proto.grpc.exporter.insecure_channel", open_channel)
    Telemetry("gateway", otlp_endpoint=endpoint, otlp_metrics=True).shutdown()
    assert len(opened) == 2
    assert [options.get("grpc.enable_http_proxy") == 0 for options in opened] == [direct, direct]
