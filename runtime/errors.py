"""The errors that callers may see, as domain exceptions. Knows status codes, nothing of servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from runtime.printable import escaped

DOMAIN = "hart"


@dataclass(frozen=True)
class Violation:
    """One bad field of a request: its path (`images[0].seed`) and what is wrong with the value it had."""

    field: str
    description: str


class HartError(Exception):
    """Base of every error that is the caller's to know. `stage` names the process where it arose, if one did.

    The message may hold text of callers: what cannot be printed is escaped in it.
    """

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"

    def __init__(self, message: str, *, stage: str = "") -> None:
        message = escaped(message)
        super().__init__(message)
        self.message = message
        self.stage = stage


class InvalidRequest(HartError):
    """The request is refused; `violations` names each bad field with its value."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[Violation], *, stage: str = "", message: str = "") -> None:
        said = "; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations)
        super().__init__(message or said or "invalid request", stage=stage)
        self.violations = tuple(violations)

    @classmethod
    def field(cls, field: str, description: str) -> InvalidRequest:
        """The error for one bad field."""
        return cls([Violation(field, description)])


class PromptUnsafe(HartError):
    """The prompt violates a policy. Names the policies and never repeats the prompt."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "PROMPT_UNSAFE"

    def __init__(self, policies: Sequence[str], policy_version: str = "", *, stage: str = "safety") -> None:
        super().__init__(f"the prompt was refused by policy: {', '.join(policies) or 'unnamed'}", stage=stage)
        self.policies = tuple(policies)
        self.policy_version = policy_version


class NotFound(HartError):
    """What the request names (a model, a version) is not served here."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class Overloaded(HartError):
    """A bound was met: `stage` and `setting` say whose and which, `retry_after` (seconds) when to come again."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"

    def __init__(self, stage: str, setting: str, retry_after: float = 1.0, *, message: str = "") -> None:
        super().__init__(message or f"{stage} is at its limit ({setting})", stage=stage)
        self.setting = setting
        self.retry_after = retry_after


class DeadlineExceeded(HartError):
    """Time ran out in `stage`, or the stage foresees that it will."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"

    def __init__(self, stage: str, detail: str = "") -> None:
        super().__init__(f"deadline exceeded in {stage}" + (f": {detail}" if detail else ""), stage=stage)
        self.detail = detail


class StageUnavailable(HartError):
    """No ready replica of `stage`, or the one that was asked went away. Harmless to try again."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "STAGE_UNAVAILABLE"

    def __init__(self, stage: str, detail: str = "", retry_after: float = 1.0) -> None:
        super().__init__(f"{stage} is unavailable" + (f": {detail}" if detail else ""), stage=stage)
        self.detail = detail
        self.retry_after = retry_after


class Unauthenticated(HartError):
    """The caller did not prove who it is."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(HartError):
    """The caller is known and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class Internal(HartError):
    """Something broke inside. The caller learns an error id; the log has the rest under that id."""

    def __init__(self, error_id: str, *, stage: str = "") -> None:
        super().__init__(f"internal error {error_id}", stage=stage)
        self.error_id = error_id
