"""training.core.loop: what a run counts and logs."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from training.core import loop
from training.core.loop import Budget, Intervals, Progress, Run


def test_time_waited_for_a_steps_figures_is_time_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a figure waits for the GPU's queued work: a budget of minutes counts that too."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], strftime=lambda form: form)
    monkeypatch.setattr(loop, "time", clock)

    class Late:
        def __float__(self) -> float:
            now[0] += 10
            return now[0]

    def step(progress: Progress) -> Mapping[str, float]:
        now[0] += 1
        return {"loss": Late()}  # type: ignore[dict-item]

    run = Run(tmp_path, {})
    assert run.train(Budget(4), step, lambda progress: {}, Intervals(log=2))
    assert run.progress.seconds == 4 * 1 + 2 * 10
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["seconds_a_step"] for line in lines if "loss" in line] == [6, 6]
