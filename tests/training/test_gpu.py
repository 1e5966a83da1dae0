"""training.gpu: stages in order, each once, none started without time for it; no GPU is code 2."""

from pathlib import Path

import pytest

from training import gpu
from training.gpu import REAL, TOY, Stage, timing, trainings, work


def staged(folder: Path, names: list[str]) -> list[Stage]:
    def stage(name: str) -> Stage:
        return Stage(name, folder / name, lambda minutes: [name, f"{minutes:.1f}"])

    return [stage(name) for name in names]


def test_stages_run_in_order_and_done_ones_are_passed_over(tmp_path: Path) -> None:
    ran = []
    (tmp_path / "b").touch()

    def run(command: list[str]) -> int:
        ran.append(command[0])
        (tmp_path / command[0]).touch()
        return 0

    assert work(staged(tmp_path, ["a", "b", "c"]), 10, run) == []
    assert ran == ["a", "c"]


def test_a_stage_that_is_not_done_yet_holds_the_next_one_back(tmp_path: Path) -> None:
    ran: list[list[str]] = []

    def run(command: list[str]) -> int:
        ran.append(command)
        return 0

    assert work(staged(tmp_path, ["a", "b"]), 10, run) == ["a", "b"]
    assert ran == [["a", "8.5"]]


def test_nothing_begins_without_time_for_it(tmp_path: Path) -> None:
    assert work(staged(tmp_path, ["a"]), 1.5, lambda _: pytest.fail("began")) == ["a"]


def test_a_failed_stage_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="stage a ended with code 7"):
        work(staged(tmp_path, ["a"]), 10, lambda _: 7)


def test_the_trainings_parse_the_commands() -> None:
    from training.recipes.emoji.dataset import EmojiDatasetSource
    from training.transformer.command import parse

    for sizes in (REAL, TOY):
        tokenizer, transformer = trainings(["flat", "noto"], sizes, "gpu")
        options = parse(EmojiDatasetSource(), transformer.command(7.0)[2:])
        assert (options.side, options.styles, options.time_limit) == (256, ["flat", "noto"], 7.0)
        assert options.tokenizer in str(tokenizer.result)
    assert timing("gpu").command(1.0)[1] == "benchmarks.full_size"


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "REQUIRED", ("torch", "no_such_package", "nor_this"))
    assert "no_such_package, nor_this" in (gpu.missing_requirement(False, []) or "")
    monkeypatch.setattr(gpu, "REQUIRED", ("torch",))
    assert gpu.missing_requirement(False, []) is None


def test_missing_images_are_named_with_the_command_that_packs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "REQUIRED", ())
    monkeypatch.setattr(gpu, "IMAGES", tmp_path)
    (tmp_path / "flat.json").touch()
    assert gpu.missing_requirement(False, ["flat"]) is None
    message = gpu.missing_requirement(False, ["flat", "noto"]) or ""
    assert "no images of noto" in message
    assert "`python -m training.recipes.emoji.images --side 256 --pack`" in message
