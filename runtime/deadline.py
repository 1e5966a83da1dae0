"""How much time a request has left, as one value that is passed on. Knows nothing of who spends it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from runtime.errors import DeadlineExceeded


@dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock, in seconds; infinity where there is none."""

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
    def of(cls, context: Any, *, default: float = math.inf, maximum: float = math.inf) -> Deadline:
        """The deadline of a server call's context: `default` seconds where the caller gave none, `maximum` at most."""
        left = context.time_remaining()
        return cls.after(min(default if left is None else left, maximum))

    def remaining(self) -> float:
        """Seconds left, negative when it has passed."""
        return self.at - time.monotonic()

    @property
    def expired(self) -> bool:
        """True when no time is left."""
        return self.remaining() <= 0

    def earlier(self, margin: float) -> Deadline:
        """This deadline less a margin in seconds, for whoever is asked next: the asker must still be able to answer."""
        return Deadline(self.at - margin)

    def timeout(self) -> float | None:
        """What a client call takes as `timeout`: seconds left (not below a millisecond), or None."""
        return None if math.isinf(self.at) else max(0.001, self.remaining())

    def require(self, stage: str, seconds: float = 0.0) -> None:
        """Raise DeadlineExceeded naming `stage` unless more than `seconds` are left."""
        if self.remaining() <= seconds:
            detail = "no time is left" if seconds <= 0 else f"{seconds:.3f} s are needed"
            raise DeadlineExceeded(stage, detail)
