"""How a channel to the gateway is made: options, credentials, service config; knows no call."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import grpc

DEFAULT_ENDPOINT = "127.0.0.1:50051"
DEFAULT_MESSAGE_BYTES = 64 * 1024 * 1024
"""Eight large PNGs pass gRPC's default of 4 MiB."""


PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""In the order in which gRPC reads them."""


@dataclass(frozen=True)
class TLS:
    """Where the certificates are, each a path to a PEM file."""

    ca: str | Path | None = None
    """Roots that sign the server's certificate. None: the roots that come with gRPC."""
    cert: str | Path | None = None
    """The client's own certificate chain, for mutual TLS; together with `key`."""
    key: str | Path | None = None
    """The client's private key."""
    server_name: str | None = None
    """The name in the server's certificate, where it is not the endpoint's host."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("tls: cert and key are given together or not at all")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files."""
        ca, key, cert = (_pem(path) if path else None for path in (self.ca, self.key, self.cert))
        return grpc.ssl_channel_credentials(ca, key, cert)


@dataclass(frozen=True)
class Connection:
    """Everything that opening a channel and calling on it needs."""

    endpoint: str = DEFAULT_ENDPOINT
    """A gRPC target: host:port, dns:///host:port, unix:path."""
    api_key: str | None = None
    """Sent as `authorization: Bearer …`."""
    tls: TLS | None = None
    """None: plaintext."""
    insecure: bool = False
    """Send the API key over plaintext to another machine too."""

    def __post_init__(self) -> None:
        for name in ("endpoint", "api_key"):  # as they come from environment files, line ends and all
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, value.strip(" \t\r\n\ufeff"))
        _require_target(self.endpoint, encrypted=self.tls is not None)
        _require_key(self.api_key)
        if not isinstance(self.tls, TLS | None):
            raise ValueError(f"tls: {self.tls!r} is no hart.TLS; hart.TLS() takes the public roots")
        if self.api_key and self.tls is None and not self.insecure and not is_loopback(self.endpoint):
            raise ValueError(
                f"api_key: would travel unencrypted to {self.endpoint!r}; give tls, or insecure=True if that is wanted"
            )

    @property
    def proxy(self) -> str:
        """The variable of the environment that has gRPC call a proxy for the endpoint; "" where there is none."""
        if is_loopback(self.endpoint):
            return ""
        return next((name for name in PROXY_VARIABLES if os.environ.get(name)), "")

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def options(self, message_bytes: int) -> list[tuple[str, Any]]:
        """Channel options: message size, keepalive, and the service config with its retries."""
        chosen: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", message_bytes),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.service_config", service_config()),
            # A gateway that comes back is found within seconds, not after the default's two minutes of backing off;
            # gRPC adds a jitter of a fifth. An attempt itself may take five seconds, for far networks and TLS.
            ("grpc.initial_reconnect_backoff_ms", 250),
            ("grpc.max_reconnect_backoff_ms", 3_000),
            ("grpc.min_reconnect_backoff_ms", 5_000),
        ]
        if is_loopback(self.endpoint):  # the environment's proxy is another machine, and has a loopback of its own
            chosen.append(("grpc.enable_http_proxy", 0))
        if self.tls and self.tls.server_name:
            chosen.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return chosen

    def open(self, message_bytes: int = DEFAULT_MESSAGE_BYTES) -> grpc.Channel:
        """A channel for blocking calls."""
        if self.tls:
            return grpc.secure_channel(self.endpoint, self.tls.credentials(), self.options(message_bytes))
        return grpc.insecure_channel(self.endpoint, self.options(message_bytes))

    def open_async(self, message_bytes: int = DEFAULT_MESSAGE_BYTES) -> grpc.aio.Channel:
        """A channel for asyncio; inside a running event loop."""
        if self.tls:
            return grpc.aio.secure_channel(self.endpoint, self.tls.credentials(), self.options(message_bytes))
        return grpc.aio.insecure_channel(self.endpoint, self.options(message_bytes))


def service_config() -> str:
    """The published gRPC service config as JSON: retries for UNAVAILABLE, throttled."""
    text = resources.files("hart").joinpath("service_config.json").read_text("utf-8")
    return json.dumps(json.loads(text), separators=(",", ":"))


def _pem(path: str | Path) -> bytes:
    """The file's bytes. Raises ValueError where it is no PEM file: gRPC would call the server unavailable."""
    data = Path(path).read_bytes()
    if b"-----BEGIN " not in data:
        raise ValueError(f"tls: {path} is no PEM file")
    return data


def _require_key(api_key: str | None) -> None:
    """Raises ValueError for what no header can carry; the key is not repeated."""
    if api_key is not None and not (isinstance(api_key, str) and all(" " <= one <= "~" for one in api_key)):
        raise ValueError("api_key: must be text of printable ASCII characters")


def _require_target(endpoint: str, encrypted: bool) -> None:
    """Raises ValueError for what gRPC would take for a host's name, or send to port 443 in plaintext."""
    if not isinstance(endpoint, str):
        raise ValueError(f"endpoint {endpoint!r}: is not host:port")
    if endpoint.lower().startswith(("http:", "https:", "grpc:", "grpcs:")):
        raise ValueError(f"endpoint {endpoint!r}: is a URL; give host:port, and tls where it is encrypted")
    if endpoint.startswith(("unix:", "unix-abstract:", "dns:", "xds:")):
        return
    host, _, port = endpoint.rpartition(":")
    named = bool(host) and port.isdecimal() and 0 < int(port) <= 65535
    by_default = encrypted and bool(endpoint) and (not host or endpoint.endswith("]"))  # 443, as everywhere
    if not (named or by_default):
        raise ValueError(f"endpoint {endpoint!r}: is not host:port")


def is_loopback(endpoint: str) -> bool:
    """Whether a target stays on this machine."""
    if endpoint.startswith(("unix:", "unix-abstract:")):
        return True
    address = endpoint.rsplit("/", 1)[-1]
    for scheme in ("dns:", "ipv4:", "ipv6:"):
        address = address.removeprefix(scheme)
    host = address.rsplit(":", 1)[0].strip("[]")
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
