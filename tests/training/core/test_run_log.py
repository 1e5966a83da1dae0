"""training.core.run_log: runs that were initialised from each other."""

import json
from pathlib import Path

import pytest

from training.core.run_log import init_chain


def started(run: Path, start: str | None) -> None:
    run.mkdir(parents=True, exist_ok=True)
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps({"event": "started", "options": {"init_from": start}}) + "\n")


def test_a_chain_holds_runs_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = Path("cache")
    started(Path("elsewhere/first"), None)
    started(cache / "second", "elsewhere/first")
    started(cache / "third", "second")
    assert init_chain(cache / "third") == [Path("elsewhere/first"), cache / "second", cache / "third"]


def test_a_circle_of_runs_ends(tmp_path: Path) -> None:
    started(tmp_path / "a", "b")
    started(tmp_path / "b", "a")
    assert init_chain(tmp_path / "a") == [tmp_path / "b", tmp_path / "a"]
