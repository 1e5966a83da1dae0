"""Typed errors, made from a gRPC status and its google.rpc details; knows neither channel nor request."""

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
    """A call that failed.

    `code` is the gRPC status code, `message` the server's sentence, `request_id` the id under which the request can be
    sent again without harm (empty where there is none).
    """

    def __init__(self, message: str, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN, request_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.request_id = request_id


class InvalidRequest(HartError):
    """Bad fields: `fields` maps each field's name to what is wrong with it; none: all of it is too large."""

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
    """The prompt violates `policies`, by their names; `policy_version` says in which version."""

    policies: tuple[str, ...] = ()
    policy_version: str = ""


class Overloaded(HartError):
    """A queue or a limit is full: `stage` and `setting` name it, `retry_after` is in seconds (None: not said)."""

    stage: str = ""
    setting: str = ""
    retry_after: float | None = None


class DeadlineExceeded(HartError):
    """Time ran out, or would have: `stage` names where (empty: on the way to the server)."""

    stage: str = ""


class Unavailable(HartError):
    """No server, or a stage without a ready replica (`stage`); `retry_after` is in seconds (None: not said)."""

    stage: str = ""
    retry_after: float | None = None


class Unauthenticated(HartError):
    """Credentials are missing or wrong."""


class PermissionDenied(HartError):
    """The credentials do not allow this."""


class Cancelled(HartError):
    """The call was cancelled."""


class InternalError(HartError):
    """The server failed: `error_id` finds the reason in its log (empty: not said)."""

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
    """The typed error of a failed call, sync or asyncio (`error` has code(), details(), trailing_metadata()). `proxy`:
    the variable of the environment that names one for this endpoint."""
    code = error.code() or grpc.StatusCode.UNKNOWN
    details = _details(error.trailing_metadata())
    reason = details.get("google.rpc.ErrorInfo")
    kind = _BY_CODE.get(code, HartError)
    if reason is not None and reason.reason == "PROMPT_UNSAFE":
        kind = PromptUnsafe
    message = escaped(error.details() or code.name)
    large = _TOO_LARGE.match(message) if reason is None else None
    if large:  # gRPC's own refusal: no waiting makes the request smaller
        kind = InvalidRequest
        message = f"the request has {large[1]} bytes, larger than max, which is {large[2]}: shorten the prompt"
    if reason is None and "Deadline Exceeded" in message:  # Our own clock's; gRPC may say "Stream removed (…)".
        message = "time ran out before the server answered"
    if reason is None and proxy and code is grpc.StatusCode.UNAVAILABLE:
        message += f"; {proxy} is set, so that a proxy was asked: no_proxy lists the hosts that are called without one"
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
    """The google.rpc details in trailing metadata by full name; none where there are none or they do not parse."""
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
        pass  # A proxy's answer: the status code and its sentence are still good.
    return found
