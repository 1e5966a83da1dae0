"""Opens channels to the gateway: options, credentials, service config."""

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
"""Max size of a response. Eight large PNGs exceed gRPC's default of 4 MiB."""


PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""In the order in which gRPC reads them."""


@dataclass(frozen=True)
class TLS:
    """Paths of PEM files. Raises ValueError if only one of `cert` and `key` is given."""

    ca: str | Path | None = None
    """Root certificates that verify the server. None: gRPC's bundled roots."""
    cert: str | Path | None = None
    """The client's certificate chain, for mutual TLS; requires `key`."""
    key: str | Path | None = None
    """The client's private key."""
    server_name: str | None = None
    """The name in the server's certificate, if it differs from the endpoint's host."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("tls: cert and key must be given together")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises OSError, ValueError."""
        ca, key, cert = (_pem(path) if path else None for path in (self.ca, self.key, self.cert))
        return grpc.ssl_channel_credentials(ca, key, cert)


@dataclass(frozen=True)
class Connection:
    """The parameters of a channel and its calls. Raises ValueError that names an invalid one."""

    endpoint: str = DEFAULT_ENDPOINT
    """A gRPC target: host:port, dns:///host:port, unix:path."""
    api_key: str | None = None
    """Sent as `authorization: Bearer …`."""
    tls: TLS | None = None
    """None: plaintext."""
    insecure: bool = False
    """Allow sending the API key over plaintext to another machine."""

    def __post_init__(self) -> None:
        for name in ("endpoint", "api_key"):  # environment files may add line ends or a byte order mark
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, value.strip(" \t\r\n\ufeff"))
        _require_target(self.endpoint, encrypted=self.tls is not None)
        _require_key(self.api_key)
        if not isinstance(self.tls, TLS | None):
            raise ValueError(f"tls: {self.tls!r}: expected a hart.TLS; hart.TLS() uses the public roots")
        if self.api_key and self.tls is None and not self.insecure and not is_loopback(self.endpoint):
            raise ValueError(
                f"api_key: would be sent unencrypted to {self.endpoint!r}; set tls, or insecure=True to allow it"
            )

    @property
    def proxy(self) -> str:
        """The environment variable that makes gRPC use a proxy for the endpoint; "" if there is none."""
        if is_loopback(self.endpoint):
            return ""
        return next((name for name in PROXY_VARIABLES if os.environ.get(name)), "")

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of every call."""
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def options(self, message_bytes: int) -> list[tuple[str, Any]]:
        """Channel options: message size, keepalive, reconnects, and the service config with its retries."""
        chosen: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", message_bytes),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.service_config", service_config()),
            # Reconnect to a restarted gateway within seconds; gRPC's default backoff grows to two minutes. gRPC adds
            # 20% jitter. An attempt may take five seconds, for slow networks and TLS.
            ("grpc.initial_reconnect_backoff_ms", 250),
            ("grpc.max_reconnect_backoff_ms", 3_000),
            ("grpc.min_reconnect_backoff_ms", 5_000),
        ]
        if is_loopback(self.endpoint):  # a proxy would connect to its own loopback
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
        """A channel for asyncio. Requires a running event loop."""
        if self.tls:
            return grpc.aio.secure_channel(self.endpoint, self.tls.credentials(), self.options(message_bytes))
        return grpc.aio.insecure_channel(self.endpoint, self.options(message_bytes))


def service_config() -> str:
    """The published gRPC service config as JSON: throttled retries of UNAVAILABLE."""
    text = resources.files("hart").joinpath("service_config.json").read_text("utf-8")
    return json.dumps(json.loads(text), separators=(",", ":"))


def _pem(path: str | Path) -> bytes:
    """The file's bytes. Raises ValueError if it is not a PEM file: gRPC would report the server as unavailable."""
    data = Path(path).read_bytes()
    if b"-----BEGIN " not in data:
        raise ValueError(f"tls: {path} is not a PEM file")
    return data


def _require_key(api_key: str | None) -> None:
    """Raises ValueError for characters that are invalid in a header. The message does not contain the key."""
    if api_key is not None and not (isinstance(api_key, str) and all(" " <= one <= "~" for one in api_key)):
        raise ValueError("api_key: must be text of printable ASCII characters")


def _require_target(endpoint: str, encrypted: bool) -> None:
    """Raises ValueError for what gRPC would misread as a host name, or connect to port 443 in plaintext."""
    if not isinstance(endpoint, str):
        raise ValueError(f"endpoint {endpoint!r}: expected host:port")
    if endpoint.lower().startswith(("http:", "https:", "grpc:", "grpcs:")):
        raise ValueError(f"endpoint {endpoint!r}: is a URL; expected host:port, with tls for an encrypted endpoint")
    if endpoint.startswith(("unix:", "unix-abstract:", "dns:", "xds:")):
        return
    host, _, port = endpoint.rpartition(":")
    named = bool(host) and port.isdecimal() and 0 < int(port) <= 65535
    by_default = encrypted and bool(endpoint) and (not host or endpoint.endswith("]"))  # the default port is 443
    if not (named or by_default):
        raise ValueError(f"endpoint {endpoint!r}: expected host:port")


def is_loopback(endpoint: str) -> bool:
    """Whether a target is on this machine."""
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
