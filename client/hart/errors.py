"""Typed errors, made from a gRPC status and its google.rpc details."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from hart.printable import escaped

_DETAILS_KEY = "grpc-status-details-bin"
_TOO_LARGE = re.compile(r"SERVER: Received message larger than max \((\d+) vs\. (\d+)\)")


class HartError(Exception):
    """A failed call.

    `code` is the gRPC status code and `message` the server's message. `request_id` makes a retry idempotent; it is
    empty if the call has none.
    """

    def __init__(self, message: str, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN, request_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.request_id = request_id


class InvalidRequest(HartError):
    """Invalid fields: `fields` maps each field's name to the reason. Empty if the whole request is too large."""

    def __init__(
        self,
        message: str,
        code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT,
        request_id: str = "",
        fields: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code, request_id)
        self.fields = dict(fields or {})


class PromptUnsafe(HartError):
    """The prompt violates the policies named in `policies`, of version `policy_version`."""

    policies: tuple[str, ...] = ()
    policy_version: str = ""


class Overloaded(HartError):
    """A queue or limit is full: `stage` and `setting` name it; `retry_after` is in seconds, or None."""

    stage: str = ""
    setting: str = ""
    retry_after: float | None = None


class DeadlineExceeded(HartError):
    """The deadline passed, or would have: `stage` names where; empty if before the server responded."""

    stage: str = ""


class Unavailable(HartError):
    """No server, or no ready replica of `stage`; `retry_after` is in seconds, or None."""

    stage: str = ""
    retry_after: float | None = None


class Unauthenticated(HartError):
    """Credentials are missing or wrong."""


class PermissionDenied(HartError):
    """The credentials do not allow this."""


class Cancelled(HartError):
    """The call was cancelled."""


class InternalError(HartError):
    """The server failed: `error_id` identifies the error in its log; empty if unknown."""

    error_id: str = ""


_BY_CODE: dict[grpc.StatusCode, type[HartError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.INTERNAL: InternalError,
}


def from_rpc(error: Any, request_id: str = "", proxy: str = "") -> HartError:
    """The typed error of a failed call, blocking or asyncio: `error` has code(), details(), trailing_metadata().

    `proxy` is the environment variable that sets a proxy for the endpoint, or "".
    """
    code = error.code() or grpc.StatusCode.UNKNOWN
    details = _details(error.trailing_metadata())
    reason = details.get("google.rpc.ErrorInfo")
    kind = _BY_CODE.get(code, HartError)
    if reason is not None and reason.reason == "PROMPT_UNSAFE":
        kind = PromptUnsafe
    message = escaped(error.details() or code.name)
    large = _TOO_LARGE.match(message) if reason is None else None
    if large:  # gRPC's own limit: a retry would fail too
        kind = InvalidRequest
        message = f"the request has {large[1]} bytes, larger than max {large[2]}; shorten the prompt"
    if (
        reason is None and "Deadline Exceeded" in message
    ):  # From the client's own timer; gRPC may wrap it as "Stream removed (…)".
        message = "the deadline passed before the server responded"
    if reason is None and proxy and code is grpc.StatusCode.UNAVAILABLE:
        message += f"; the call used the proxy in {proxy}; list hosts to call directly in no_proxy"
    typed = kind(message, code, request_id)
    for name, value in (dict(reason.metadata) if reason is not None else {}).items():
        if isinstance(getattr(kind, name, None), str):
            setattr(typed, name, value)
    _fill(typed, details)
    return typed


def _fill(typed: HartError, details: Mapping[str, Any]) -> None:
    reason = details.get("google.rpc.ErrorInfo")
    if isinstance(typed, PromptUnsafe):
        typed.policies = tuple(filter(None, reason.metadata["policies"].split(","))) if reason else ()
    retry = details.get("google.rpc.RetryInfo")
    if retry is not None and isinstance(typed, Overloaded | Unavailable):
        typed.retry_after = max(0.0, retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)
    bad = details.get("google.rpc.BadRequest")
    if bad is not None and isinstance(typed, InvalidRequest):
        typed.fields = {escaped(violation.field): escaped(violation.description) for violation in bad.field_violations}


def _details(metadata: Any) -> dict[str, Any]:
    """The google.rpc details in trailing metadata by full name; empty if absent or malformed."""
    found: dict[str, Any] = {}
    packed = next((value for key, value in metadata or () if key == _DETAILS_KEY), None)
    if packed is None:
        return found
    try:
        for detail in status_pb2.Status.FromString(packed).details:
            for kind in (
                error_details_pb2.BadRequest,
                error_details_pb2.ErrorInfo,
                error_details_pb2.RetryInfo,
            ):
                message = kind()
                if detail.Unpack(message):
                    found[kind.DESCRIPTOR.full_name] = message
    except DecodeError:
        pass  # From a proxy: the status code and message are still valid.
    return found
