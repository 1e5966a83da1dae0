"""Numbers as libraries have them: taken as Python's own, or refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.errors import SettingError
from model.noise import SeededNoise
from model.params import SamplingParams
from model.pipeline import Pipeline
from model.safety import Policies
from tests.recipes import read_recipe


def test_a_recipe_can_be_written_whatever_numbers_a_picture_was_asked_for_with(tiny: Path) -> None:
    settings = SamplingParams(np.float32(0.5), np.bool_(True), torch.tensor(0.25))  # type: ignore[arg-type]
    picture = Pipeline.load(tiny).draw("a red heart", np.uint64(2**63), settings)  # type: ignore[arg-type]
    recipe = read_recipe(picture.to_bytes())
    assert recipe is not None
    assert (recipe.seed, recipe.guidance, recipe.more_smooth, recipe.top_p) == (2**63, 0.5, True, 0.25)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"guidance": "4"}, "guidance"),
        ({"guidance": True}, "guidance"),
        ({"guidance": np.array([1.0])}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"more_smooth": 1}, "more_smooth"),
        ({"top_p": None}, "top_p"),
    ],
)
def test_what_is_no_number_is_refused_by_name(given: dict[str, Any], field: str) -> None:
    with pytest.raises(SettingError, match=f"{field}: "):
        SamplingParams(**given)


@pytest.mark.parametrize("seed", [1.5, "7", True, np.float64(7)])
def test_a_seed_that_is_no_whole_number_is_refused_by_name(seed: object) -> None:
    with pytest.raises(SettingError, match="seed: "):
        SeededNoise(seed)  # type: ignore[arg-type]


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    content = {"version": "1", "threshold": 0.5, "policies": [{"name": "harm", "guideline": "none"}]}
    (tmp_path / "policies.json").write_text(json.dumps(content), "utf-8-sig")
    assert Policies.read(tmp_path / "policies.json").names == ("harm",)
