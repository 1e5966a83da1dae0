"""The loop that every training shares: resuming, logging, saving, averaged weights. Knows nothing of what is trained.

A step's random numbers depend on the run's seed and the step's number alone, so that a run which was stopped and
resumed is the same run, to the bit, when it counts steps.
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


class RunError(ModelError):
    """A run's saved state cannot be gone on from; the message names the file."""


class Stateful(Protocol):
    def state_dict(self) -> Mapping[str, Any]: ...
    def load_state_dict(self, state: Any, /) -> Any: ...


def parts_of(run: Path, device: torch.device | str = "cpu") -> Mapping[str, Any]:
    """What another run saved, by part. Raises RunError if it saved nothing."""
    if not (run / STATE).exists():
        raise RunError(f"{run / STATE}: missing; nothing of this run was saved to start from")
    return cast(Mapping[str, Any], torch.load(run / STATE, map_location=device, weights_only=True)["parts"])


class Average:
    """A running average of a network's weights: what is measured, drawn with and exported."""

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

    def progress(self, step: int, seconds: float) -> float:
        """0 at the start, 1 at the end."""
        by_time = 0.0 if self.minutes is None else seconds / (60 * self.minutes)
        return min(1.0, max(step / self.steps, by_time))


def end_of(sitting: float | None) -> float:
    """When a sitting of so many minutes that begins now is over (`time.monotonic()`); None never is."""
    return math.inf if sitting is None else time.monotonic() + 60 * sitting


@dataclass
class Moment:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0
    progress: float = 0.0


class Run:
    """A folder with a run's state, log and sheets."""

    def __init__(self, folder: Path, parts: Mapping[str, Stateful], seed: int = 0) -> None:
        self.folder, self.parts, self.seed = folder, parts, seed
        self.moment = Moment()
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self) -> bool:
        """Loads the state if there is one. Raises RunError if it is another network's."""
        path = self.folder / STATE
        if not path.exists():
            return False
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            try:
                part.load_state_dict(state["parts"][name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise RunError(
                    f"{path}: holds a run of another {name} than these options make: give them as they were, "
                    f"or another --name ({' '.join(str(error).split())[:200]})"
                ) from None
        self.moment = Moment(**state["moment"])
        self.log(event="resumed", step=self.moment.step)
        return True

    def save(self) -> None:
        path = self.folder / STATE
        partial = path.with_suffix(".partial")
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save({"parts": parts, "moment": vars(self.moment)}, partial)
        os.replace(partial, path)

    def log(self, **figures: object) -> None:
        """One JSON line to log.jsonl and to the terminal."""
        line = json.dumps({"time": time.strftime("%H:%M:%S"), **figures})
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def train(
        self,
        budget: Budget,
        step: Callable[[Moment], Mapping[str, float | Tensor]],
        measure: Callable[[Moment], Mapping[str, float]],
        log_every: int = 20,
        measure_every: float = 240,
        save_every: float = 120,
        until: float = math.inf,
    ) -> bool:
        """Runs to the budget's end: `step` trains, `measure` looks. Saves and measures by the clock (seconds).

        A step's figures are read when they are logged, so that a GPU is not waited for in between.

        It stops with the first step that ends after `until` (`time.monotonic()`); returns whether the budget's end was
        reached.
        """
        saved = measured = then = time.monotonic()
        since, count = then, 0
        while (now := self._at(budget)).progress < 1:
            torch.manual_seed(self.seed * 1_000_003 + now.step)
            figures = step(now)
            self.moment.step += 1
            due = self.moment.step % log_every == 0
            read = _rounded(figures) if due else {}  # before the clock: a GPU is waited for here
            tick = time.monotonic()
            self.moment.seconds += tick - then
            count += 1
            if due:
                pace = (tick - since) / count
                self.log(step=self.moment.step, seconds_a_step=round(pace, 3), **read)
                since, count = tick, 0
            if tick - saved > save_every:
                self.save()
                saved = tick
            if tick - measured > measure_every:
                self.log(event="measured", step=self.moment.step, **_rounded(measure(self._at(budget))))
                measured = since = time.monotonic()
                count = 0
            then = time.monotonic()
            if then > until and (now := self._at(budget)).progress < 1:
                self.save()
                self.log(event="stopped", step=self.moment.step, progress=round(now.progress, 3))
                return False
        self.save()
        self.log(event="done", step=self.moment.step, **_rounded(measure(self._at(budget))))
        return True

    def _at(self, budget: Budget) -> Moment:
        self.moment.progress = budget.progress(self.moment.step, self.moment.seconds)
        return self.moment


def _rounded(figures: Mapping[str, float | Tensor]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in figures.items()}
