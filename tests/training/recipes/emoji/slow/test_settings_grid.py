"""training.recipes.emoji.settings_grid: finished settings are kept for the same checkpoint and prompts alone."""

from pathlib import Path

import pytest

from model.checkpoint import bundled
from model.pipeline import Pipeline
from tests.training.recipes.emoji.judging import judge_of, known
from training.recipes.emoji import settings_grid
from training.recipes.emoji.settings_grid import (
    TEMPERATURES,
    Grid,
    grid_figures,
    targets_of,
)


def test_a_finished_setting_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, images = Pipeline.load(bundled(), safety=False), known(side=128)
    targets, judge = targets_of(images, 2), judge_of(images)
    grid, path = Grid((1.0,), ((False, 0.3),)), tmp_path / "grid.json"
    first = grid_figures(pipeline, judge, targets, grid, path)
    assert len(first) == len(TEMPERATURES)
    assert len({row["psnr"] for row in first.values()}) == len(TEMPERATURES)
    monkeypatch.setattr(settings_grid, "draw_with_temperatures", lambda *_: pytest.fail("drawn again"))
    assert grid_figures(pipeline, judge, targets, grid, path) == first
