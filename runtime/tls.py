"""TLS credentials from files, reloaded after a rotation."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import NamedTuple

import grpc

log = logging.getLogger(__name__)


class Files(NamedTuple):
    """Paths of PEM files; "" means absent. A server with `ca` requires client certificates."""

    cert: str = ""
    key: str = ""
    ca: str = ""

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """A value that changes when a file is replaced (in place, by rename, or by symlink as in Kubernetes)."""
        stamps = []
        for path in filter(None, self):
            found = os.stat(path)
            stamps.append((found.st_mtime_ns, found.st_ino, found.st_size))
        return tuple(stamps)

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The contents of certificate, key and authority. Raises OSError, which names the file."""
        cert, key, ca = (Path(path).read_bytes() if path else None for path in self)
        return cert, key, ca

    def require_usable(self) -> None:
        """Raise OSError or ValueError, which names the file, if a file is missing or invalid."""
        self.read()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            what = f"{self.cert} and {self.key} are not a certificate and its key"
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
            what = f"{self.ca} is not a certificate authority's certificate"
            if self.ca:
                context.load_verify_locations(self.ca)
        except ssl.SSLError as error:
            raise ValueError(f"{what}: {error.reason or error}") from None


def server_credentials(files: Files) -> grpc.ServerCredentials:
    """Credentials that are checked for rotation at every handshake, so that the next connection uses the new files.

    An incomplete rotation (the key does not match the certificate yet) is ignored until it is complete.
    """
    source = _Rotating(files)
    demand = bool(files.ca)
    return grpc.dynamic_ssl_server_credentials(source.first, source.fetch, demand)  # type: ignore[arg-type]


def https_context(files: Files) -> ssl.SSLContext:
    """The context of an HTTPS server, which follows rotated files as `server_credentials` does. Raises OSError or
    ValueError, which names the file."""
    stamp = files.stamp()
    outer = current = _https_context(files)

    def follow(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        nonlocal stamp, current
        try:
            if (new := files.stamp()) != stamp:
                current, stamp = _https_context(files), new
                log.info("certificates rotated")
        except (OSError, ValueError) as error:
            log.warning("rotated certificates are not usable yet: %s", error)
        connection.context = current

    outer.sni_callback = follow
    return outer


def _https_context(files: Files) -> ssl.SSLContext:
    files.require_usable()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert, files.key)
    if files.ca:
        context.load_verify_locations(files.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Rotating:
    def __init__(self, files: Files) -> None:
        self._files = files
        self._stamp = files.stamp()
        self.first = _configuration(files)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration; None if nothing changed or the new files are not usable yet."""
        try:
            stamp = self._files.stamp()
            if stamp == self._stamp:
                return None
            configuration = _configuration(self._files)
        except (OSError, ValueError) as error:
            log.warning("rotated certificates are not usable yet: %s", error)
            return None
        self._stamp = stamp
        log.info("certificates rotated")
        return configuration


def _configuration(files: Files) -> grpc.ServerCertificateConfiguration:
    if not (files.cert and files.key):
        raise ValueError("a TLS server requires a certificate and a key")
    files.require_usable()
    cert, key, ca = files.read()
    assert cert is not None and key is not None  # noqa: S101, PT018 - both paths are set
    return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca)


def channel_credentials(files: Files) -> grpc.ChannelCredentials:
    """A client's credentials from the current files. Create a new channel when `Files.stamp` changes."""
    cert, key, ca = files.read()
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)
