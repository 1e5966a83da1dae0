"""Conversion between domain errors and gRPC status with google.rpc details."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple, cast

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from runtime import errors
from runtime.printable import escaped

log = logging.getLogger(__name__)
MAX_VIOLATIONS = 16  # details are trailing metadata, which peers limit to 8 KiB
MAX_TEXT = 240


class Status(NamedTuple):
    """The end of a call: code, message and the trailing metadata that holds the details."""

    code: grpc.StatusCode
    message: str
    trailing: tuple[tuple[str, bytes], ...]


def new_error_id() -> str:
    """A new id that links an internal error to its log record."""
    return uuid.uuid4().hex[:16]


def clip(text: str, limit: int = MAX_TEXT) -> str:
    """The first `limit` characters of the text, unprintable ones escaped."""
    text = escaped(text[:limit] + text[limit:][:1])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def to_proto(error: errors.HartError) -> status_pb2.Status:
    """The google.rpc.Status of a domain error."""
    proto = status_pb2.Status(code=error.code.value[0], message=clip(error.message, 1024))
    for detail in _details(error):
        proto.details.add().Pack(detail)
    return proto


def to_status(error: errors.HartError) -> Status:
    """The status with which to abort a call."""
    status = rpc_status.to_status(to_proto(error))
    return Status(error.code, status.details, tuple(status.trailing_metadata))


def _details(error: errors.HartError) -> list[Message]:
    metadata = {"stage": error.stage} if error.stage else {}
    details: list[Message] = []
    if isinstance(error, errors.InvalidRequest):
        bad = error_details_pb2.BadRequest()
        for violation in error.violations[:MAX_VIOLATIONS]:
            bad.field_violations.add(field=clip(violation.field, 80), description=clip(violation.description))
        details.append(bad)
    if isinstance(error, errors.PromptUnsafe):
        metadata |= {"policies": ",".join(error.policies), "policy_version": error.policy_version}
    if isinstance(error, errors.Overloaded):
        metadata["setting"] = error.setting
    if isinstance(error, errors.Internal):
        metadata["error_id"] = error.error_id
    if isinstance(error, errors.Overloaded | errors.StageUnavailable):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(max(0.0, error.retry_after) * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    details.append(error_details_pb2.ErrorInfo(reason=error.reason, domain=errors.DOMAIN, metadata=metadata))
    return details


def as_hart_error(error: BaseException, stage: str) -> errors.HartError:
    """The error itself if clients may see it; else an Internal error. The log holds the original under its id."""
    if isinstance(error, errors.HartError):
        return error
    error_id = new_error_id()
    log.error("internal error", exc_info=error, extra={"error_id": error_id})
    return errors.Internal(error_id, stage=stage)


class _Unpacked(NamedTuple):
    info: error_details_pb2.ErrorInfo | None
    bad: error_details_pb2.BadRequest | None
    retry_after: float


def _unpack(proto: status_pb2.Status | None) -> _Unpacked:
    info, bad, retry_after = None, None, 1.0
    with suppress(DecodeError):
        for detail in proto.details if proto else ():
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                detail.Unpack(info)
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = error_details_pb2.BadRequest()
                detail.Unpack(bad)
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo()
                detail.Unpack(retry)
                retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    return _Unpacked(info, bad, retry_after)


def from_rpc_error(error: grpc.RpcError, stage: str) -> errors.HartError:
    """The domain error of a failed call to `stage`. Without hart details it follows from the status code."""
    code, message = error.code(), error.details() or ""
    proto = None
    for key, value in cast("Iterable[tuple[str, bytes]]", error.trailing_metadata() or ()):
        if key == "grpc-status-details-bin":
            with suppress(DecodeError):  # other servers may use the key differently
                proto = status_pb2.Status.FromString(value)
    return from_parts(code, message, proto, stage)


def from_proto(proto: status_pb2.Status, stage: str) -> errors.HartError:
    """The domain error of a google.rpc.Status."""
    code = next((c for c in grpc.StatusCode if c.value[0] == proto.code), grpc.StatusCode.UNKNOWN)
    return from_parts(code, proto.message, proto, stage)


def from_parts(code: grpc.StatusCode, message: str, proto: status_pb2.Status | None, stage: str) -> errors.HartError:
    """The domain error of a code, a message and optional details."""
    info, bad, retry_after = _unpack(proto)
    metadata = dict(info.metadata) if info and info.domain == errors.DOMAIN else {}
    where = metadata.get("stage") or stage
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE | grpc.StatusCode.FAILED_PRECONDITION:
            if info and info.reason == errors.PromptUnsafe.reason:
                policies = [p for p in metadata.get("policies", "").split(",") if p]
                return errors.PromptUnsafe(policies, metadata.get("policy_version", ""), stage=where)
            found = [errors.Violation(v.field, v.description) for v in (bad.field_violations if bad else ())]
            return errors.InvalidRequest(found or [errors.Violation("", message)], stage=where, message=message)
        case grpc.StatusCode.NOT_FOUND:
            return errors.NotFound(message, stage=where)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return errors.Overloaded(where, metadata.get("setting", ""), retry_after, message=message)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.DeadlineExceeded(where, _tail(message) if info else "")
        case grpc.StatusCode.UNAVAILABLE:
            return errors.StageUnavailable(where, _tail(message) if info else message, retry_after)
        case grpc.StatusCode.CANCELLED | grpc.StatusCode.ABORTED:  # the peer ended the call, e.g. while stopping
            return errors.StageUnavailable(where, "the replica cancelled the call")
        case grpc.StatusCode.UNAUTHENTICATED:
            return errors.Unauthenticated(message, stage=where)
        case grpc.StatusCode.PERMISSION_DENIED:
            return errors.PermissionDenied(message, stage=where)
    if not info and _connection_cut(message):
        return errors.StageUnavailable(where, "the connection was lost")
    return errors.Internal(metadata.get("error_id") or new_error_id(), stage=where)


def _tail(message: str) -> str:
    return message.split(": ", 1)[1] if ": " in message else ""


def _connection_cut(message: str) -> bool:
    # If a peer dies between frames, gRPC raises INTERNAL or UNKNOWN with one of these texts.
    return re.search(r"RST_STREAM|[Ss]tream removed|[Ss]ocket closed|[Cc]onnection reset|GOAWAY", message) is not None
