"""Verifies JWTs. Its imports take a fraction of a second, which a gateway without JWTs saves."""

from __future__ import annotations

from typing import Any

import jwt

from gateway.access.jwks import KeySet
from gateway.config import GatewaySettings
from runtime.errors import HartError, PermissionDenied, Unauthenticated

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
"""Signatures by a private key only: a published key must not be able to sign."""


class JwtVerifier:
    """Verifies tokens of the configured issuer."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._keys = KeySet(settings.jwt_jwks_url)
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._scope = settings.jwt_scope

    async def name_of(self, token: str) -> str:
        """The caller's name, issuer included. Raises Unauthenticated, PermissionDenied or StageUnavailable."""
        claims = await self._claims(token)
        if self._scope and self._scope not in _scopes(claims):
            raise PermissionDenied(f"the token has no scope {self._scope}")
        return f"{claims['iss']}#{claims['sub']}"

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                await self._keys.key_of(token),
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience or None,
                leeway=10,
                options={"require": ["exp", "iss", "sub"], "verify_aud": bool(self._audience)},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired") from None
        except HartError:
            raise
        except Exception:  # any client can write a token: the parser may raise any error
            raise Unauthenticated("invalid token") from None
        return claims


def _scopes(claims: dict[str, Any]) -> list[str]:
    found = claims.get("scope", claims.get("scp"))
    if isinstance(found, str):
        return found.split()
    return [str(scope) for scope in found] if isinstance(found, list) else []
