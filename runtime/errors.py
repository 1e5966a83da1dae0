"""Domain exceptions: the errors that clients may see, with their gRPC status codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import grpc

from runtime.printable import escaped

DOMAIN = "hart"


@dataclass(frozen=True)
class Violation:
    """One invalid field of a request: its path (`images[0].seed`) and a description of the fault."""

    field: str
    description: str


class HartError(Exception):
    """Base of every error that is returned to clients. `stage` names the process that raised it, if any.

    The message may contain text from clients, so unprintable characters in it are escaped.
    """

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"

    def __init__(self, message: str, *, stage: str = "") -> None:
        message = escaped(message)
        super().__init__(message)
        self.message = message
        self.stage = stage


class InvalidRequest(HartError):
    """The request is invalid. `violations` names each invalid field with its value."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[Violation], *, stage: str = "", message: str = "") -> None:
        described = "; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations)
        super().__init__(message or described or "invalid request", stage=stage)
        self.violations = tuple(violations)

    @classmethod
    def field(cls, field: str, description: str) -> Self:
        """The error for one invalid field."""
        return cls([Violation(field, description)])


class RequestIdReused(InvalidRequest):
    """The request id belongs to an earlier request with other content."""


class PromptUnsafe(HartError):
    """The prompt violates a policy. The message names the policies and never repeats the prompt."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "PROMPT_UNSAFE"

    def __init__(self, policies: Sequence[str], policy_version: str = "", *, stage: str = "safety") -> None:
        super().__init__(f"the prompt was refused by policy: {', '.join(policies) or 'unnamed'}", stage=stage)
        self.policies = tuple(policies)
        self.policy_version = policy_version


class NotFound(HartError):
    """The requested model or version is not served here."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class Overloaded(HartError):
    """A limit of `stage` is reached. `setting` names the limit; clients may retry after `retry_after` seconds."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"

    def __init__(self, stage: str, setting: str, retry_after: float = 1.0, *, message: str = "") -> None:
        super().__init__(message or f"{stage} is at its limit ({setting})", stage=stage)
        self.setting = setting
        self.retry_after = retry_after


class DeadlineExceeded(HartError):
    """The deadline passed in `stage`, or `stage` estimates that it cannot be met."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"

    def __init__(self, stage: str, detail: str = "") -> None:
        super().__init__(f"deadline exceeded in {stage}" + (f": {detail}" if detail else ""), stage=stage)
        self.detail = detail


class StageUnavailable(HartError):
    """`stage` has no ready replica, or the called replica went away. Safe to retry."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "STAGE_UNAVAILABLE"

    def __init__(self, stage: str, detail: str = "", retry_after: float = 1.0) -> None:
        super().__init__(f"{stage} is unavailable" + (f": {detail}" if detail else ""), stage=stage)
        self.detail = detail
        self.retry_after = retry_after


class Unauthenticated(HartError):
    """The call has no valid credentials."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(HartError):
    """The authenticated caller lacks the permission."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class Internal(HartError):
    """An internal error. The client gets an error id; the log holds the details under that id."""

    def __init__(self, error_id: str, *, stage: str = "") -> None:
        super().__init__(f"internal error {error_id}", stage=stage)
        self.error_id = error_id
