"""What the logs of runs tell."""

import json
from pathlib import Path

import pytest

from training.record import chain


def started(run: Path, start: str | None) -> None:
    run.mkdir(parents=True, exist_ok=True)
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps({"event": "started", "options": {"start": start}}) + "\n")


def test_a_chain_holds_runs_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = Path("cache")
    started(Path("elsewhere/first"), None)
    started(cache / "second", "elsewhere/first")
    started(cache / "third", "second")
    assert chain(cache / "third") == [Path("elsewhere/first"), cache / "second", cache / "third"]


def test_runs_that_began_with_each_other_end(tmp_path: Path) -> None:
    started(tmp_path / "a", "b")
    started(tmp_path / "b", "a")
    assert chain(tmp_path / "a") == [tmp_path / "b", tmp_path / "a"]
