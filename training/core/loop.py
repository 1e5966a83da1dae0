"""The loop that every training shares: resuming, logging, saving, averaged weights.

A step's random numbers depend on the run's seed and the step's number alone. So a run that was stopped and resumed is
the same run, to the bit, if its budget counts steps.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from model.errors import ModelError

STATE = "state.pt"
MIN_TRAINING_PER_MEASURING = 10
"""Seconds of training for each second of measuring: on a slow machine intervals grow."""


class RunError(ModelError):
    """A run's saved state cannot be resumed; the message names the file."""


class Stateful(Protocol):
    def state_dict(self) -> Mapping[str, Any]: ...
    def load_state_dict(self, state: Any, /) -> Any: ...


def saved_parts(run: Path, device: torch.device | str = "cpu") -> Mapping[str, Any]:
    """The state that another run saved, by part. Raises RunError if it saved none."""
    if not (run / STATE).exists():
        raise RunError(f"{run / STATE}: missing; this run saved no state to initialise from")
    return cast(Mapping[str, Any], torch.load(run / STATE, map_location=device, weights_only=True)["parts"])


class EMA:
    """An exponential moving average of a network's weights, which is measured, sampled from and exported."""

    def __init__(self, network: nn.Module, decay: float = 0.998) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        share = 1 - min(self.decay, (step + 1) / (step + 10))
        mine = [t for t in self.network.state_dict().values() if t.is_floating_point()]
        theirs = [t for t in network.state_dict().values() if t.is_floating_point()]
        torch._foreach_lerp_(mine, theirs, share)

    def state_dict(self) -> Mapping[str, Any]:
        return self.network.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.network.load_state_dict(state)


@dataclass(frozen=True)
class Budget:
    """How long a run lasts: so many steps, or so many minutes of training if that comes first."""

    steps: int
    minutes: float | None = None

    def fraction(self, step: int, seconds: float) -> float:
        """0 at the start, 1 at the end."""
        by_time = 0.0 if self.minutes is None else seconds / (60 * self.minutes)
        return min(1.0, max(step / self.steps, by_time)) if self.steps else 1.0


def deadline_after(minutes: float | None) -> float:
    """The time (`time.monotonic()`) so many minutes from now; infinity for None."""
    return math.inf if minutes is None else time.monotonic() + 60 * minutes


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    seconds: float = 0.0
    fraction: float = 0.0
    """Of its budget, 0 to 1."""


@dataclass(frozen=True)
class Intervals:
    """How often a run logs (steps), measures and saves (seconds)."""

    log: int = 20
    measure: float = 240
    save: float = 120


class Run:
    """A folder with a run's state, log and sample grids."""

    def __init__(self, folder: Path, parts: Mapping[str, Stateful], seed: int = 0) -> None:
        self.folder, self.parts, self.seed = folder, parts, seed
        self.progress = Progress()
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self) -> bool:
        """Loads the state and returns whether there was one. Raises RunError if it is another network's."""
        path = self.folder / STATE
        if not path.exists():
            return False
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            try:
                part.load_state_dict(state["parts"][name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise RunError(
                    f"{path}: is the state of another {name} than these options build: repeat the run's options, "
                    f"or choose another --name ({' '.join(str(error).split())[:200]})"
                ) from None
        self.progress = Progress(**state["progress"])
        self.log(event="resumed", step=self.progress.step)
        return True

    def save(self) -> None:
        """Writes the state; the file is replaced whole, so an interrupted save leaves the last one."""
        path = self.folder / STATE
        partial = path.with_suffix(".partial")
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save({"parts": parts, "progress": vars(self.progress)}, partial)
        os.replace(partial, path)

    def log(self, **figures: object) -> None:
        """Writes one line of JSON to log.jsonl and to the terminal."""
        line = json.dumps({"time": time.strftime("%H:%M:%S"), **figures})
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def train(
        self,
        budget: Budget,
        step: Callable[[Progress], Mapping[str, float | Tensor]],
        measure: Callable[[Progress], Mapping[str, float]],
        intervals: Intervals = Intervals(),
        deadline: float = math.inf,
    ) -> bool:
        """Calls `step` until the budget is used, and `measure` by the clock; returns True then.

        Figures of a step are read only when they are logged, so a GPU is not waited for in between. After the first
        step that ends past `deadline` (`time.monotonic()`) the state is saved and False returned.
        """
        saved = measured = last = time.monotonic()
        log_start, log_steps, measuring = last, 0, 0.0
        while (now := self._at(budget)).fraction < 1:
            torch.manual_seed(self.seed * 1_000_003 + now.step)
            figures = step(now)
            now.step += 1
            due = now.step % intervals.log == 0
            values = _rounded(figures) if due else {}  # before the clock is read: this waits for a GPU
            tick = time.monotonic()
            now.seconds += tick - last
            log_steps += 1
            if due:
                self.log(step=now.step, seconds_a_step=round((tick - log_start) / log_steps, 3), **values)
                log_start, log_steps = tick, 0
            if tick - saved > intervals.save:
                self.save()
                saved = tick
            if tick - measured > max(intervals.measure, MIN_TRAINING_PER_MEASURING * measuring):
                self.log(event="measured", step=now.step, **_rounded(measure(self._at(budget))))
                measured = log_start = time.monotonic()
                log_steps, measuring = 0, measured - tick
            last = time.monotonic()
            if last > deadline and self._at(budget).fraction < 1:
                self.save()
                self.log(event="stopped", step=now.step, fraction=round(now.fraction, 3))
                return False
        self.save()
        self.log(event="done", step=now.step, **_rounded(measure(now)))
        return True

    def _at(self, budget: Budget) -> Progress:
        self.progress.fraction = budget.fraction(self.progress.step, self.progress.seconds)
        return self.progress


def _rounded(figures: Mapping[str, float | Tensor]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in figures.items()}
