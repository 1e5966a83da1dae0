"""Authentication: API keys and JWTs in `authorization: Bearer …`."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.access import rate_limits
from gateway.config import GatewaySettings
from runtime.errors import HartError, Unauthenticated
from runtime.server.call_scope import CallInfo

if TYPE_CHECKING:
    from gateway.access.jwt_verifier import JwtVerifier

log = logging.getLogger(__name__)
GUARDED = ("hart.", "grpc.reflection.")
MAX_CREDENTIAL = 8192


class ApiKeys:
    """Caller names by API key, from a setting and from a file that is re-read on change. Keys are stored hashed."""

    def __init__(self, listed: str, file: str) -> None:
        self._listed = _parse(listed.split(","), "HART_API_KEYS")
        if listed and not self._listed:
            raise ValueError("HART_API_KEYS contains no key: every caller would be admitted")
        self._file = file
        self._stamp: tuple[int, ...] | None = None
        self._filed: dict[bytes, str] = {}
        self._refresh()

    def __bool__(self) -> bool:
        return bool(self._listed or self._file)

    def name_of(self, key: str) -> str | None:
        """The key's caller; None for an unknown key."""
        self._refresh()
        hashed = _hash(key)
        return self._listed.get(hashed) or self._filed.get(hashed)

    def _refresh(self) -> None:
        if not self._file:
            return
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp  # also for an unusable file: one warning, not one per call
        try:
            self._filed = _parse(Path(self._file).read_text("utf-8-sig").splitlines(), self._file)
        except (OSError, ValueError) as error:  # half written or absent for a moment: known keys stay valid
            log.warning("cannot read the file of API keys: %s", error)


def _stamp(file: str) -> tuple[int, ...]:
    """Changes with the file's content or permissions; () without a file."""
    try:
        found = os.stat(file)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size


def _parse(compatible: list[str], where: str) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for number, line in enumerate((line.strip() for line in compatible), 1):
        if not line or line.startswith("#"):
            continue
        name, separator, key = line.partition("=")
        if not separator or not name.strip() or not key.strip():
            raise ValueError(f"{where}: entry {number} is not name=key")
        found[_hash(key.strip())] = name.strip()
    return found


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class Authentication:
    """A guard: admits calls with a known API key or a valid JWT as bearer token, and sets the caller's name."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._keys = ApiKeys(settings.api_keys.get_secret_value(), settings.api_keys_file)
        self._tokens = _tokens(settings) if settings.jwt_jwks_url else None

    @property
    def required(self) -> bool:
        """False without API keys and JWT settings: every caller is admitted."""
        return bool(self._keys) or self._tokens is not None

    @asynccontextmanager
    async def __call__(self, call: CallInfo) -> AsyncIterator[None]:
        """Authenticates a call. Raises Unauthenticated, PermissionDenied; StageUnavailable without issuer keys."""
        if self.required and call.method.startswith(GUARDED):
            try:
                rate_limits.current.set(await self._identify(call.header("authorization")))
            except HartError as error:
                rate_limits.rejected(call, error)
                raise
        yield

    async def _identify(self, header: str) -> str:
        scheme, _, token = header.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > MAX_CREDENTIAL:
            raise Unauthenticated("missing credentials: send metadata `authorization: Bearer <key or JWT>`")
        name = self._keys.name_of(token)
        if name is not None:
            return name
        if self._tokens is None or token.count(".") != 2:
            raise Unauthenticated("unknown API key")
        return await self._tokens.name_of(token)


def _tokens(settings: GatewaySettings) -> JwtVerifier:
    from gateway.access.jwt_verifier import (
        JwtVerifier,  # imported only where JWTs are configured: the import takes a fraction of a second
    )

    return JwtVerifier(settings)
