"""An issuer's public keys, fetched and kept. Knows no claims."""

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
LIFETIME = 300.0  # seconds; then the keys are fetched again, while those known are used
REFETCH_COOLDOWN = 10.0  # seconds between fetches for the sake of an unknown key: tokens are anybody's to send
TIMEOUT = 5.0
MAX_BYTES = 2**20
MAX_WAITING = 200  # calls, at the same time, with tokens that may be anybody's


class KeySet:
    """The keys at `url` (JWKS). Where the issuer is away, the keys known so far hold."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched_at = -LIFETIME
        self._tried_at = -REFETCH_COOLDOWN
        self._fetching: asyncio.Task[None] | None = None
        self._waiting = 0

    async def key_of(self, token: str) -> jwt.PyJWK:
        """The key that the token says it was signed with. Raises jwt.PyJWTError where there is no such key, and
        StageUnavailable where the issuer's keys were never to be had."""
        kid = jwt.get_unverified_header(token).get("kid")
        known = self._find(kid)
        if known is None or time.monotonic() - self._fetched_at > LIFETIME:
            self._refresh()
        if known is None and self._fetching is not None:
            await self._fetched(self._fetching)
            known = self._find(kid)
        if not self._keys:
            raise StageUnavailable("gateway", "the token issuer's keys cannot be had", retry_after=REFETCH_COOLDOWN)
        if known is None:
            raise jwt.PyJWKSetError("unknown key")
        return known

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    async def _fetched(self, fetching: asyncio.Task[None]) -> None:
        """Wait with all who do: one of them who goes away does not end it for the others."""
        if self._waiting >= MAX_WAITING:
            raise StageUnavailable("gateway", "too many wait for the token issuer's keys", retry_after=TIMEOUT)
        self._waiting += 1
        try:
            left = self._tried_at + TIMEOUT - time.monotonic()
            await asyncio.wait([fetching], timeout=max(0.0, left))
        finally:
            self._waiting -= 1

    def _refresh(self) -> None:
        """Begin to fetch, unless that is under way or was tried just now."""
        under_way = self._fetching is not None and not self._fetching.done()
        if not under_way and time.monotonic() - self._tried_at >= REFETCH_COOLDOWN:
            self._tried_at = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        try:
            self._keys = await asyncio.to_thread(_fetch, self._url)
            self._fetched_at = time.monotonic()
        except (OSError, ValueError) as error:
            log.warning("the issuer's keys cannot be fetched: %s", error)
        except Exception as error:  # whatever a document can do to its readers; and the words may be the URL's
            log.warning("the issuer's keys cannot be fetched: %s", type(error).__name__)


def _fetch(url: str) -> dict[str | None, jwt.PyJWK]:
    end, body = time.monotonic() + TIMEOUT, b""  # urllib's own timeout is for each read alone
    with opener(url).open(url, timeout=TIMEOUT) as answer:
        while piece := answer.read1(MAX_BYTES):
            body += piece
            if len(body) > MAX_BYTES or time.monotonic() > end:
                raise OSError(f"{len(body)} bytes came, and no end of them within {TIMEOUT:g} s and {MAX_BYTES} bytes")
    return keys_of(body)


def keys_of(body: bytes) -> dict[str | None, jwt.PyJWK]:
    """The usable keys of a JWKS document by their ids; others are passed over. Raises ValueError where there is
    none, whatever the document is."""
    try:
        document = json.loads(body)
        entries = document["keys"]
        found = [key for entry in entries if (key := _key(entry)) is not None] if isinstance(entries, list) else []
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"no key set: {type(error).__name__}") from None
    if not found:
        raise ValueError("no key of the key set can be used")
    return {key.key_id: key for key in found}


def _key(entry: Any) -> jwt.PyJWK | None:
    try:
        key = jwt.PyJWK.from_dict(entry)
        usable = key.key_id is None or isinstance(key.key_id, str)
    except Exception:  # PyJWT looks at no member's type, and cryptography has errors of its own
        return None
    return key if usable else None
