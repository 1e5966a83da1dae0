"""Requests and their moments: a constant rate, a daily curve, a burst, or a trace from the gateway's audit log."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from planner.errors import PlanError

DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Arrival:
    """One request."""

    at: float
    """Seconds since the start."""
    images: int = 1
    preview_every: int = 0
    """Scales between previews; 0: none."""
    deadline: float = 60.0
    """Seconds."""
    format: str = "png"


@dataclass(frozen=True)
class Mix:
    """What the requests of a synthetic workload ask for."""

    images: tuple[tuple[int, float], ...] = ((1, 1.0),)
    """(Images, weight) pairs."""
    preview_share: float = 0.0
    """The share of requests with previews."""
    preview_every: int = 2
    deadline: float = 60.0
    format: str = "png"

    def draw(self, at: float, source: random.Random) -> Arrival:
        """A request at this moment."""
        counts, weights = zip(*self.images, strict=True)
        every = self.preview_every if source.random() < self.preview_share else 0
        return Arrival(at, source.choices(counts, weights)[0], every, self.deadline, self.format)

    @property
    def mean_images(self) -> float:
        """Images per request."""
        return sum(n * w for n, w in self.images) / sum(w for _, w in self.images)


def constant(rate: float, seconds: float, mix: Mix, source: random.Random) -> Iterator[Arrival]:
    """Poisson arrivals, `rate` requests per second."""
    return _poisson(lambda at: rate, rate, seconds, mix, source)


def daily(low: float, high: float, seconds: float, mix: Mix, source: random.Random) -> Iterator[Arrival]:
    """A day from night (`low` requests per second) to its peak (`high`) and back, in `seconds`."""

    def rate(at: float) -> float:
        return low + (high - low) * (1 - math.cos(2 * math.pi * at / seconds)) / 2

    return _poisson(rate, max(low, high), seconds, mix, source)


def burst(rate: float, peak: float, window: tuple[float, float], seconds: float, mix: Mix,
          source: random.Random) -> Iterator[Arrival]:  # fmt: skip
    """`rate` requests per second, and `peak` from second window[0] to window[1]."""
    return _poisson(lambda at: peak if window[0] <= at < window[1] else rate, max(rate, peak), seconds, mix, source)


def _poisson(
    rate: Callable[[float], float], maximum: float, seconds: float, mix: Mix, source: random.Random
) -> Iterator[Arrival]:
    """A Poisson process of varying rate, by thinning one of the maximum rate."""
    if not (maximum > 0 and math.isfinite(maximum)):
        raise PlanError(f"rate: expected more than 0 requests per second, not {maximum}")
    at = 0.0
    while (at := at + source.expovariate(maximum)) < seconds:
        if source.random() * maximum <= rate(at):
            yield mix.draw(at, source)


def trace(path: Path, speed: float = 1.0, deadline: float = 60.0) -> list[Arrival]:
    """The requests of the gateway's audit log: lines of JSON with `time`, and in `audit` `seconds` and `images`.
    Each arrived `seconds` before its line. Other lines are skipped. `speed` 2 sends them in half the time.

    Raises PlanError for a file without a request or with a line that has no time.
    """
    found = sorted(_requests(path.read_text(errors="replace").splitlines(), deadline), key=lambda one: one.at)
    if not found:
        raise PlanError(f"trace {str(path)!r}: no audit line of a request in it")
    first = found[0].at
    return [Arrival((a.at - first) / speed, a.images, a.preview_every, a.deadline, a.format) for a in found]


def _requests(lines: Iterable[str], deadline: float) -> Iterator[Arrival]:
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        audit = record.get("audit") if isinstance(record, dict) else None
        if not isinstance(audit, dict) or "images" not in audit or "seconds" not in audit:
            continue
        ended = _seconds(record.get("time"), number)
        yield Arrival(
            at=ended - float(audit["seconds"]),
            images=max(1, int(audit["images"])),
            preview_every=int(audit.get("preview_every", 0)),
            deadline=float(audit.get("deadline", deadline)),
        )


def _seconds(moment: Any, number: int) -> float:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except (TypeError, ValueError):
        raise PlanError(f"trace line {number}: time: expected ISO 8601, not {moment!r}") from None
