"""HTTPS with the gRPC server's certificates (runtime.tls.https_context)."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx2
import pytest

from gateway.assembly import build
from gateway.config import GatewaySettings
from gateway.http.server import HttpServer
from runtime.observability.telemetry import Telemetry
from runtime.server.app import App
from tests.gateway.http.support import GENERATE, PATH, port_of
from tests.gateway.support import running_gateway
from tests.runtime.certificates import Authority


def context(ca: str, cert: str = "", key: str = "") -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=ca)
    if cert:
        found.load_cert_chain(cert, key)
    return found


async def generate(port: int, verify: ssl.SSLContext) -> int:
    async with httpx2.AsyncClient(base_url=f"https://localhost:{port}", verify=verify, trust_env=False) as client:
        return (await client.post(PATH, json=GENERATE, timeout=60)).status_code


async def test_a_rotated_certificate_is_served_to_the_next_connection(tmp_path: Path) -> None:
    cert, key, ca = Authority().write(tmp_path / "server")
    async with running_gateway(
        http_port=0, tls_cert=cert, tls_key=key, stage_tls_ca="", allow_plaintext=True
    ) as running:
        port = port_of(running)
        assert await generate(port, context(ca)) == 200
        old = context(ca)
        Authority("another").write(tmp_path / "server")
        assert await generate(port, context(ca)) == 200
        with pytest.raises(httpx2.ConnectError):
            await generate(port, old)


async def test_a_client_without_a_certificate_is_refused_where_clients_need_one(tmp_path: Path) -> None:
    authority = Authority()
    cert, key, ca = authority.write(tmp_path / "server")
    client_cert, client_key, _ = authority.write(tmp_path / "client")
    app, http = assembled(tls_cert=cert, tls_key=key, tls_ca=ca)
    await http.start()
    try:
        with pytest.raises(httpx2.TransportError):
            await healthz(http.port, context(ca))
        assert await healthz(http.port, context(ca, client_cert, client_key)) == 200
    finally:
        await http.stop()
        await app.stop()


def assembled(**settings: str) -> tuple[App, HttpServer]:
    """A gateway's HTTP server without stages: with `tls_ca` the stages would need certificates too."""
    chosen = GatewaySettings.load(port=0, http_port=0, **settings)
    app = App(chosen, "gateway", Telemetry("gateway"))
    build(app, chosen)
    stops = [getattr(stop, "__self__", None) for stop in app._stops]
    return app, next(one for one in stops if isinstance(one, HttpServer))


async def healthz(port: int, verify: ssl.SSLContext) -> int:
    async with httpx2.AsyncClient(verify=verify, trust_env=False) as client:
        return (await client.get(f"https://localhost:{port}/healthz")).status_code
