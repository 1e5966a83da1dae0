"""A token issuer's public keys (JWKS), fetched and cached."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import jwt

from runtime.errors import StageUnavailable
from runtime.outbound import opener

log = logging.getLogger(__name__)
LIFETIME = 300.0  # seconds until a refetch; known keys stay valid meanwhile
REFETCH_COOLDOWN = 10.0  # seconds between fetches for an unknown key: anyone can send a token
TIMEOUT = 5.0
MAX_BYTES = 2**20
MAX_WAITING = 200  # concurrent calls that wait for a fetch


class KeySet:
    """The keys at `url` (JWKS). While the issuer is unreachable, known keys stay valid."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = -LIFETIME
        self._tried_at = -REFETCH_COOLDOWN
        self._fetching: asyncio.Task[None] | None = None
        self._waiting = 0

    async def key_of(self, token: str) -> jwt.PyJWK:
        """The key that the token names. Raises jwt.PyJWTError for an unknown key, StageUnavailable before the first
        fetch."""
        kid = jwt.get_unverified_header(token).get("kid")
        known = self._find(kid)
        if known is None or time.monotonic() - self._fetched_at > LIFETIME:
            self._refresh()
        if known is None and self._fetching is not None:
            await self._fetched(self._fetching)
            known = self._find(kid)
        if not self._keys:
            raise StageUnavailable("gateway", "cannot fetch the token issuer's keys", retry_after=REFETCH_COOLDOWN)
        if known is None:
            raise jwt.PyJWKSetError("unknown key")
        return known

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    async def _fetched(self, fetching: asyncio.Task[None]) -> None:
        """Waits for the shared fetch. A cancelled call does not cancel it for the others."""
        if self._waiting >= MAX_WAITING:
            raise StageUnavailable("gateway", "too many calls wait for the token issuer's keys", retry_after=TIMEOUT)
        self._waiting += 1
        try:
            left = self._tried_at + TIMEOUT - time.monotonic()
            await asyncio.wait([fetching], timeout=max(0.0, left))
        finally:
            self._waiting -= 1

    def _refresh(self) -> None:
        """Starts a fetch, unless one is running or was tried within the cooldown."""
        under_way = self._fetching is not None and not self._fetching.done()
        if not under_way and time.monotonic() - self._tried_at >= REFETCH_COOLDOWN:
            self._tried_at = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        try:
            self._keys = await asyncio.to_thread(_fetch, self._url)
            self._fetched_at = time.monotonic()
        except (OSError, ValueError) as error:
            log.warning("cannot fetch the token issuer's keys: %s", error)
        except Exception as error:  # any parser error; its text may contain the URL's credentials
            log.warning("cannot fetch the token issuer's keys: %s", type(error).__name__)


def _fetch(url: str) -> dict[str | None, jwt.PyJWK]:
    end, body = time.monotonic() + TIMEOUT, b""  # urllib's own timeout is for each read alone
    with opener(url).open(url, timeout=TIMEOUT) as answer:
        while piece := answer.read1(MAX_BYTES):
            body += piece
            if len(body) > MAX_BYTES or time.monotonic() > end:
                raise OSError(f"response larger than {MAX_BYTES} bytes or slower than {TIMEOUT:g} s")
    return keys_of(body)


def keys_of(body: bytes) -> dict[str | None, jwt.PyJWK]:
    """The usable keys of a JWKS document by id; others are skipped. Raises ValueError for any document without one."""
    try:
        document = json.loads(body)
        entries = document["keys"]
        found = [key for entry in entries if (key := _key(entry)) is not None] if isinstance(entries, list) else []
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"no key set: {type(error).__name__}") from None
    if not found:
        raise ValueError("the key set has no usable key")
    return {key.key_id: key for key in found}


def _key(entry: Any) -> jwt.PyJWK | None:
    try:
        key = jwt.PyJWK.from_dict(entry)
        usable = key.key_id is None or isinstance(key.key_id, str)
    except Exception:  # PyJWT checks no member's type, and cryptography raises its own errors
        return None
    return key if usable else None
