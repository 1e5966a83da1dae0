"""The pause before a retry: a pure function, shared by the gateway's calls and the planner's simulation."""

from __future__ import annotations

import random
from collections.abc import Callable

MIN_BACKOFF = 0.02  # seconds, doubled with every attempt, with jitter


def pause_seconds(retries: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """Seconds before the next attempt, after so many retries. `uniform(a, b)` draws the jitter."""
    return MIN_BACKOFF * 2.0**retries * uniform(0.5, 1.5)
