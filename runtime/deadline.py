"""The deadline of a request as one value that is passed on."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

from runtime.errors import DeadlineExceeded


class HasDeadline(Protocol):
    """A call on its server, over any transport."""

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline; None without one."""
        ...


@dataclass(frozen=True)
class Deadline:
    """A time of the monotonic clock in seconds; infinity means no deadline."""

    at: float = math.inf

    @classmethod
    def none(cls) -> Deadline:
        """No deadline."""
        return cls()

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline `seconds` from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def of(cls, context: HasDeadline, *, default: float = math.inf, maximum: float = math.inf) -> Deadline:
        """The deadline of a server call. `default` seconds without a client deadline, at most `maximum` seconds."""
        left = context.time_remaining()
        return cls.after(min(default if left is None else left, maximum))

    def remaining(self) -> float:
        """Seconds left; negative after the deadline."""
        return self.at - time.monotonic()

    @property
    def expired(self) -> bool:
        """True if no time is left."""
        return self.remaining() <= 0

    def earlier(self, margin: float) -> Deadline:
        """This deadline minus a margin in seconds. The margin leaves a caller time to respond after a downstream
        call."""
        return Deadline(self.at - margin)

    def timeout(self) -> float | None:
        """The `timeout` of a client call: seconds left (min 0.001), or None without a deadline."""
        return None if math.isinf(self.at) else max(0.001, self.remaining())

    def require(self, stage: str, seconds: float = 0.0) -> None:
        """Raise DeadlineExceeded for `stage` unless more than `seconds` are left."""
        if self.remaining() <= seconds:
            detail = "no time left" if seconds <= 0 else f"{seconds:.3f} s needed"
            raise DeadlineExceeded(stage, detail)
