"""training.recipes.emoji.settings_grid: finished settings are kept for the same checkpoint and prompts alone."""

from pathlib import Path

import numpy as np

from training.recipes.emoji.concepts import Concept
from training.recipes.emoji.embedding import ImageEmbedding
from training.recipes.emoji.images import EmojiImages
from training.recipes.emoji.nearest_neighbour import NearestNeighbour
from training.recipes.emoji.settings_grid import (
    FULL,
    Results,
    grid_table,
    image_figures,
    name_of,
    targets_of,
)


def known(count: int = 12, side: int = 32) -> EmojiImages:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    concepts = [Concept("noto" if i % 2 else "flat", f"name {i}", (), "objects", "tools", str(i)) for i in range(count)]
    every = np.arange(count)
    return EmojiImages(pixels, np.full(pixels.shape[:3], 255, np.uint8), every, every[:0], concepts)


def judge_of(images: EmojiImages) -> NearestNeighbour:
    judge = NearestNeighbour.__new__(NearestNeighbour)
    judge.embedding = ImageEmbedding.fit(images.pixels, dimensions=8)
    judge.codes = [concept.hexcode for concept in images.concepts]
    return judge


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
