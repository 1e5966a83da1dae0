"""training.recipes.emoji.settings_grid: finished settings are kept for the same checkpoint and prompts alone."""

from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import bundled
from model.pipeline import Pipeline
from training.recipes.emoji import settings_grid
from training.recipes.emoji.concepts import Concept
from training.recipes.emoji.embedding import ImageEmbedding
from training.recipes.emoji.images import EmojiImages
from training.recipes.emoji.nearest_neighbour import NearestNeighbour
from training.recipes.emoji.settings_grid import (
    TEMPERATURES,
    Grid,
    grid_figures,
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


def test_a_finished_setting_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, images = Pipeline.load(bundled(), safety=False), known(side=128)
    targets, judge = targets_of(images, 2), judge_of(images)
    grid, path = Grid((1.0,), ((False, 0.3),)), tmp_path / "grid.json"
    first = grid_figures(pipeline, judge, targets, grid, path)
    assert len(first) == len(TEMPERATURES)
    assert len({row["psnr"] for row in first.values()}) == len(TEMPERATURES)
    monkeypatch.setattr(settings_grid, "draw_with_temperatures", lambda *_: pytest.fail("drawn again"))
    assert grid_figures(pipeline, judge, targets, grid, path) == first
