"""What an engine sleeps."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

VARIABLE = "SLEEPING_PROFILE"
MAX_DEBT = 0.05
"""Seconds. A longer delay is not made up for."""
DIGEST = "0" * 64
"""Of every stage's part: all of them fit together."""


def profile_of(stage: str) -> dict[str, Any]:
    """This stage's entry of the profile. Raises SystemExit without one."""
    path = os.environ.get(VARIABLE, "")
    try:
        found: dict[str, Any] = json.loads(Path(path).read_text())["stages"][stage]
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"{VARIABLE}={path!r}: no profile of {stage}: {error!r}") from None
    return found


def put_into(module: ModuleType, **attributes: object) -> None:
    """Replace names of a module that it imported itself. Raises AttributeError for a name that it does not have."""
    for name, value in attributes.items():
        getattr(module, name)
        setattr(module, name, value)


class Sleeper:
    """Sleeps exact seconds on average: the delay of one wake-up shortens the next sleep."""

    def __init__(self) -> None:
        self._debt = 0.0

    def sleep(self, seconds: float) -> None:
        """Sleep. Call it on one thread only."""
        begun = time.monotonic()
        time.sleep(max(0.0, seconds - self._debt))
        self._debt = min(MAX_DEBT, self._debt + time.monotonic() - begun - seconds)


class Table:
    """Seconds of a batch by its size, for every size up to the max."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self._seconds = list(seconds)

    def of(self, size: int) -> float:
        """Seconds of a batch of `size`, 1 to the max."""
        return self._seconds[size - 1]
