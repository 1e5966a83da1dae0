"""training.recipes.emoji.settings_grid: finished settings are kept for the same checkpoint and prompts alone."""

from pathlib import Path

from tests.training.recipes.emoji.judging import judge_of, known
from training.recipes.emoji.settings_grid import (
    FULL,
    Results,
    grid_table,
    image_figures,
    name_of,
    targets_of,
)


def test_results_resume_for_the_same_checkpoint_alone(tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    Results(path, {"digest": "a"}).add("one", {"psnr": 1.0})
    assert Results(path, {"digest": "a"}).figures == {"one": {"psnr": 1.0}}
    assert Results(path, {"digest": "b"}).figures == {}


def test_targets_name_concept_and_style_and_are_their_own_best_images() -> None:
    images = known()
    targets = targets_of(images, 8)
    assert targets_of(images, 8).prompts == targets.prompts
    assert {prompt.endswith(", noto") for prompt in targets.prompts} == {True, False}
    judge = judge_of(images)
    figures = image_figures(targets.pixels, targets, judge)
    assert figures["right"] == 1
    assert figures["psnr"] == 100
    assert figures["frechet"] < 1e-6
    assert abs(figures["sharpness"] - 1) < 1e-6
    assert image_figures(255 - targets.pixels, targets, judge)["psnr"] < 20


def test_every_setting_has_a_name_of_its_own_and_the_table_begins_with_the_best() -> None:
    names = [name_of(settings, temperature) for settings in FULL for temperature in (1.0, 0.0, None)]
    assert len(set(names)) == len(names)
    row = {"psnr": 1.0, "ssim": 0.5, "sharpness": 1.0, "frechet": 3.0, "right": 1.0}
    lines = grid_table({"worse": row, "better": row | {"psnr": 2.0}}).splitlines()
    assert lines[0] == "| setting | psnr | ssim | sharpness | frechet | right |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| better", "| worse"]
