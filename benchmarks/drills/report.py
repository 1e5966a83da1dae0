"""What a drill found: figures, and invariants with whether they held. Knows no drill."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence


class Report:
    """Printed line by line as it grows; `held` at the end says whether every invariant did."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self.held = True
        self._began = time.monotonic()

    def figure(self, name: str, value: object) -> None:
        """Note a measured value."""
        self._say(f"  {name:<46} {_shown(value)}")

    def invariant(self, sentence: str, held: bool, seen: object = "") -> None:
        """Note whether an invariant held, and what was seen."""
        self.held &= bool(held)
        self._say(f"  {'held  ' if held else 'BROKEN'} {sentence}" + (f": {_shown(seen)}" if seen != "" else ""))

    def end(self) -> str:
        """The last line, and then the whole text."""
        self._say(f"{self.name}: {'held' if self.held else 'BROKEN'} ({time.monotonic() - self._began:.0f} s)")
        return "\n".join(self.lines)

    def _say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """The least-squares slope, in units of the value per unit of time; 0 of fewer than three points."""
    if len(times) < 3:
        return 0.0
    mean_time, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((t - mean_time) ** 2 for t in times)
    return sum((t - mean_time) * (v - mean) for t, v in zip(times, values, strict=True)) / spread if spread else 0.0


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Counter):
        return ", ".join(f"{key} {count}" for key, count in value.most_common()) or "none"
    return str(value)
