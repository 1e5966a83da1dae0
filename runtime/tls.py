"""Certificates from files, read again when they are rotated. Knows nothing of who is allowed what."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import NamedTuple

import grpc

log = logging.getLogger(__name__)


class Files(NamedTuple):
    """Paths of PEM files; an empty one is absent. A server with `ca` demands certificates of its clients."""

    cert: str = ""
    key: str = ""
    ca: str = ""

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Changes when a file's content is replaced (in place, by rename or, as Kubernetes does, by link)."""
        stamps = []
        for path in filter(None, self):
            found = os.stat(path)
            stamps.append((found.st_mtime_ns, found.st_ino, found.st_size))
        return tuple(stamps)

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The contents of certificate, key and authority. Raises OSError naming the file."""
        cert, key, ca = (Path(path).read_bytes() if path else None for path in self)
        return cert, key, ca

    def require_usable(self) -> None:
        """Raises OSError or ValueError naming a file that is missing, or is not what it should be."""
        self.read()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            what = f"{self.cert} and {self.key} are no certificate and its key"
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
            what = f"{self.ca} is no authority's certificate"
            if self.ca:
                context.load_verify_locations(self.ca)
        except ssl.SSLError as error:
            raise ValueError(f"{what}: {error.reason or error}") from None


def server_credentials(files: Files) -> grpc.ServerCredentials:
    """Credentials that are looked up at every handshake, so that rotated files count for the next connection.

    A rotation that is only half written (the key does not fit the certificate yet) is passed over until it is whole.
    """
    source = _Rotating(files)
    demand = bool(files.ca)
    return grpc.dynamic_ssl_server_credentials(source.first, source.fetch, demand)  # type: ignore[arg-type]


class _Rotating:
    def __init__(self, files: Files) -> None:
        self._files = files
        self._stamp = files.stamp()
        self.first = _configuration(files)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration, or None where nothing changed (or what changed cannot be used yet)."""
        try:
            stamp = self._files.stamp()
            if stamp == self._stamp:
                return None
            configuration = _configuration(self._files)
        except (OSError, ValueError) as error:
            log.warning("rotated certificates cannot be used yet: %s", error)
            return None
        self._stamp = stamp
        log.info("certificates were rotated")
        return configuration


def _configuration(files: Files) -> grpc.ServerCertificateConfiguration:
    if not (files.cert and files.key):
        raise ValueError("a TLS server wants a certificate and a key")
    files.require_usable()
    cert, key, ca = files.read()
    assert cert is not None and key is not None  # noqa: S101, PT018 - named above
    return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca)


def channel_credentials(files: Files) -> grpc.ChannelCredentials:
    """A client's credentials from the files as they are now; make a new channel when `Files.stamp` changes."""
    cert, key, ca = files.read()
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)
