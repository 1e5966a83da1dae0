"""A bundle is whole or it is refused, and its card says how it was made."""

import json
from pathlib import Path

import pytest

from model.checkpoint import bundled
from model.errors import CheckpointError
from training import bundle


def log(run: Path, *lines: dict[str, object]) -> None:
    run.mkdir(parents=True)
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_commands_are_what_was_run_in_the_order_it_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "CACHE", tmp_path)
    log(tmp_path / "t", {"event": "started", "options": {"name": "t", "styles": ["flat", "noto"], "compile": False}})
    log(tmp_path / "a", {"event": "started", "options": {"name": "a", "minutes": None, "sitting": 9.0}})
    log(tmp_path / "b", {"event": "started", "options": {"name": "b", "start": "a"}})
    lines = bundle.commands(tmp_path / "t", tmp_path / "b", Path("checkpoints/mine"), 128).splitlines()
    assert "python -m training.bundle checkpoints/mine --transformer b --tokenizer t" in lines
    assert "python -m training.tokenizer --name t --styles flat noto --no-compile" in lines
    first, second = (lines.index(f"python -m training.transformer --name {name}") for name in ("a", "b --start a"))
    assert first < second


def test_a_part_that_is_not_there_is_named_and_nothing_is_touched(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.json").write_text("{}")
    out = tmp_path / "out"
    (out / "llm").mkdir(parents=True)
    (out / "llm" / "kept").touch()
    with pytest.raises(CheckpointError, match="gone: no safety model here"):
        bundle.copy_parts(out, {"llm": tmp_path / "here", "safety": tmp_path / "gone"})
    assert (out / "llm" / "kept").exists()


def test_parts_are_copied_and_replace_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.json").write_text("{}")
    out = tmp_path / "out"
    (out / "llm").mkdir(parents=True)
    (out / "llm" / "stale").touch()
    bundle.copy_parts(out, {"llm": tmp_path / "here"})
    assert [path.name for path in (out / "llm").iterdir()] == ["config.json"]
    assert bundle.size_of(out) == 2


def test_every_package_that_training_reads_is_attributed() -> None:
    text = bundle.ATTRIBUTIONS.read_text()
    for package in bundle.PACKAGES.values():
        assert f"{package.name} | {package.version} | {package.licence}" in text


def test_the_last_figures_of_a_log_are_quoted(tmp_path: Path) -> None:
    log(tmp_path / "run", {"event": "measured", "step": 1}, {"step": 2, "loss": 0.1}, {"event": "done", "step": 3})
    assert bundle.last_figures(tmp_path / "run")["step"] == 3
    assert bundle.last_figures(tmp_path / "none") == {}


def test_a_run_that_never_was_is_named_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundle, "CACHE", tmp_path)
    monkeypatch.setattr("sys.argv", ["bundle", str(tmp_path / "out"), "--transformer", "gone"])
    with pytest.raises(SystemExit) as ended:
        bundle.main()
    assert ended.value.code == 2
    assert "--transformer gone: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_card_gives_each_figure_of_safety_once_and_no_machine_that_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "CACHE", tmp_path)
    figures = tmp_path / "evaluation" / "mine" / "figures.md"
    figures.parent.mkdir(parents=True)
    figures.write_text(
        "| figure | value |\n|---|---|\n| things | 3 |\n| safety.threshold | 0.75 |\n"
        "| safety.recall_words | 0.5 |\n| safety.false_alarms_names | 0 |\n| safety.recall_by_policy.harassment | 1 |\n"
    )
    (tmp_path / "safety.json").write_text(json.dumps({"recall_words": 0.5, "false_alarms_names": 0.0}))
    folder = tmp_path / "mine"
    folder.mkdir()
    bundle.write_card(folder, tmp_path / "b", tmp_path / "t", [], 128)
    card = (folder / "README.md").read_text()
    assert [line for line in card.splitlines() if "recall_" in line or "false_" in line] == [
        "| recall_words | 0.5 |",
        "| false_alarms_names | 0.0 |",
    ]
    assert "| safety.threshold | 0.75 |" in card
    assert "CPU" not in card


def test_the_bundled_card_gives_each_figure_of_safety_once() -> None:
    card = (bundled() / "README.md").read_text()
    assert card.count("false_alarms_emoji_names |") == card.count("recall_harassment |") == 1
    assert "One CPU core" not in card
