"""Errors of the HTTP API: each domain error as a status and a body of the OpenAI API."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from runtime import errors

INVALID, SERVER = "invalid_request_error", "server_error"
FIELDS = {
    "num_images": "n",
    "format": "output_format",
    "quality": "output_compression",
    "preview_every": "partial_images",
    "request_id": "Idempotency-Key",
}
"""Names of wire fields in this API, where they differ."""


class InvalidBody(errors.InvalidRequest):
    """A field of the body is invalid. Its violations have this API's names."""


class BodyTooLarge(errors.InvalidRequest):
    """The body exceeds HART_MAX_MESSAGE_BYTES."""


class BodyTimeout(errors.DeadlineExceeded):
    """The body did not arrive within HART_RECEIVE_SECONDS."""


class UnsupportedBody(errors.InvalidRequest):
    """The body is not application/json, or it is compressed."""


class MethodNotAllowed(errors.InvalidRequest):
    """The path exists, but not with this method."""


@dataclass(frozen=True)
class Shape:
    """One kind of error in this API."""

    status: int
    type: str
    code: str
    retry: bool = False
    """Whether a retry of the same request can succeed. OpenAI's packages read it in `x-should-retry`."""


TABLE: dict[type[errors.HartError], Shape] = {
    errors.InvalidRequest: Shape(400, INVALID, "invalid_value"),
    errors.PromptUnsafe: Shape(400, INVALID, "content_policy_violation"),
    errors.Unauthenticated: Shape(401, INVALID, "invalid_api_key"),
    errors.PermissionDenied: Shape(403, INVALID, "insufficient_permissions"),
    errors.NotFound: Shape(404, INVALID, "not_found"),
    MethodNotAllowed: Shape(405, INVALID, "method_not_allowed"),
    BodyTimeout: Shape(408, INVALID, "request_timeout", retry=True),
    BodyTooLarge: Shape(413, INVALID, "request_too_large"),
    UnsupportedBody: Shape(415, INVALID, "unsupported_media_type"),
    errors.RequestIdReused: Shape(422, INVALID, "idempotency_key_reused"),
    errors.Overloaded: Shape(429, "rate_limit_error", "rate_limit_exceeded", retry=True),
    errors.HartError: Shape(500, SERVER, "internal_error"),
    errors.StageUnavailable: Shape(503, SERVER, "service_unavailable", retry=True),
    errors.DeadlineExceeded: Shape(504, SERVER, "deadline_exceeded"),
}
"""In order of status. An error has the shape of its nearest class; its gRPC status code is that class's `code`."""


def shape_of(error: errors.HartError) -> Shape:
    """The error's row of the table."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def grpc_code(kind: type[errors.HartError]) -> grpc.StatusCode:
    """The gRPC status code of the same error."""
    return kind.code


def body_of(error: errors.HartError) -> dict[str, dict[str, str | None]]:
    """`{"error": {"message", "type", "param", "code"}}`. `param` is the first bad field."""
    shape = shape_of(error)
    message, param = error.message, None
    if isinstance(error, errors.InvalidRequest):
        named = error.violations if isinstance(error, InvalidBody) else _renamed(error.violations)
        message = _described(named) or message
        param = next((one.field for one in named if one.field), None)
    code = "model_not_found" if param == "model" else shape.code
    return {"error": {"message": message, "type": shape.type, "param": param, "code": code}}


def to_json(error: errors.HartError) -> bytes:
    """The body as JSON."""
    return json.dumps(body_of(error)).encode()


def headers_of(error: errors.HartError) -> dict[str, str]:
    """Headers that clients act on."""
    shape = shape_of(error)
    headers = {"x-should-retry": "true" if shape.retry else "false"}
    if isinstance(error, errors.Overloaded | errors.StageUnavailable):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, errors.Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return headers


def _renamed(violations: Sequence[errors.Violation]) -> list[errors.Violation]:
    return [errors.Violation(FIELDS.get(one.field, one.field), one.description) for one in violations]


def _described(violations: Sequence[errors.Violation]) -> str:
    return "; ".join(f"{one.field}: {one.description}" if one.field else one.description for one in violations)
