"""The bundled checkpoint's own sampling defaults, and what overrides them."""

import re
import shutil
from pathlib import Path

import pytest

from model.checkpoint import Checkpoint, bundled
from model.params import SamplingParams
from model.pipeline import Pipeline

OWN = SamplingParams(guidance=0, more_smooth=True, top_p=0, residual_temperature=0)
CARD = Path(bundled()) / "README.md"


def test_the_bundle_draws_without_guidance_and_without_noise_in_the_residuals() -> None:
    assert Checkpoint.open(bundled()).sampling_defaults == OWN


def test_a_copy_without_the_file_has_the_released_defaults(tmp_path: Path) -> None:
    (tmp_path / "llm").mkdir()
    shutil.copy(Path(bundled()) / "llm" / "config.json", tmp_path / "llm")
    assert Checkpoint.open(tmp_path).sampling_defaults == SamplingParams(4.5, True, 0, 1)
    shutil.copy(Path(bundled()) / "generation.json", tmp_path)
    assert Checkpoint.open(tmp_path).sampling_defaults == OWN


def test_a_picture_without_settings_has_the_bundles_in_its_recipe() -> None:
    pipeline = Pipeline.load(bundled(), safety=False)
    recipe = pipeline.draw("a red heart", seed=7).recipe
    assert (recipe.guidance, recipe.more_smooth, recipe.top_p, recipe.residual_temperature) == (0, True, 0, 0)


@pytest.mark.parametrize("name", ["guidance 4.5, smooth, top_p 0, temperature 1", "guidance 0, smooth, top_p 0"])
def test_the_card_shows_the_released_settings_and_the_bundles(name: str) -> None:
    assert re.search(rf"^\| {re.escape(name)}", CARD.read_text(), re.MULTILINE)


def test_the_bundles_settings_are_better_than_the_released_ones_in_the_card() -> None:
    released, own = re.findall(r"^\| guidance [^|]*\| ([0-9.]+) ", CARD.read_text(), re.MULTILINE)[:2]
    assert float(own) > float(released) + 2
