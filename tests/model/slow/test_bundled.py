"""checkpoints/: the bundled checkpoint is complete and small, and its images are as promised."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from model.checkpoint import Checkpoint, bundled
from model.generation import Generator
from model.noise import SeededNoise
from model.params import SamplingParams
from model.pipeline import Pipeline
from model.pixels import Pixels
from tests.recipes import read_recipe

MAX_BYTES = 36_000_000
PIXEL_TOLERANCE = 2
"""Of 255, in float32: alone or in a batch."""


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(bundled())


def test_bundle_is_complete_and_small() -> None:
    folder = Path(bundled())
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= MAX_BYTES
    assert {"README.md", "ATTRIBUTIONS.md", "prompts.txt", "vocabulary.txt"} <= {path.name for path in folder.iterdir()}
    assert (folder / "text_encoder" / "system_prompt.txt").read_text().strip()
    policies = json.loads((folder / "safety" / "policies.json").read_text())["policies"]
    assert len(policies) == 4


def test_red_heart_is_red_on_white(pipeline: Pipeline) -> None:
    image = pipeline.draw("a red heart", seed=7)
    red, green, blue = image.pixels[50:70, 50:78].reshape(-1, 3).mean(0)
    assert red > 180
    assert max(green, blue) < 110
    corners = [image.pixels[:8, :8], image.pixels[-8:, :8], image.pixels[-8:, -8:]]
    assert min(corner.mean() for corner in corners) > 225
    recipe = read_recipe(image.to_bytes())
    assert recipe is not None
    assert recipe.model == Checkpoint.open(bundled()).name


@pytest.mark.parametrize("more_smooth", [True, False])
def test_other_images_in_a_batch_change_no_image(pipeline: Pipeline, more_smooth: bool) -> None:
    checkpoint, settings = pipeline.checkpoint, SamplingParams(more_smooth=more_smooth)
    generator = Generator(checkpoint.load_transformer(), pipeline.tokenizer.quantize, slots=6)
    prompts = checkpoint.known_prompts()[:6]
    conditioning = pipeline.text_encoder.encode(prompts).conditioning

    def drawn(chosen: list[int]) -> tuple[list[torch.Tensor], list[Pixels]]:
        states = [generator.begin(conditioning[i], SeededNoise(100 + i), settings) for i in chosen]
        tokens: list[list[torch.Tensor]] = [[] for _ in chosen]
        while states[0].scale < generator.scales:
            generator.advance(states)
            for mine, state in zip(tokens, states, strict=True):
                assert state.tokens is not None
                mine.append(state.tokens)
        for state in states:
            generator.release(state)
        return [torch.cat(mine) for mine in tokens], [pipeline.pixels_of(state.latent) for state in states]

    tokens, pixels = drawn(list(range(6)))
    for i in range(6):
        (alone,), (image,) = drawn([i])
        assert torch.equal(alone, tokens[i])
        assert np.abs(image.astype(int) - pixels[i].astype(int)).max() <= PIXEL_TOLERANCE


def test_known_prompts_are_safe(pipeline: Pipeline) -> None:
    """The model card states the false-positive rate; far more would be a broken bundle."""
    assert pipeline.safety
    verdicts = pipeline.safety.check(pipeline.checkpoint.known_prompts()[:100])
    assert sum(verdict.unsafe for verdict in verdicts) <= 10


def test_readme_images_match_their_prompts_and_seed() -> None:
    docs = Path(__file__).resolve().parents[3] / "docs"
    with Image.open(docs / "pictures.webp") as image:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    drawn = json.loads(comment.removeprefix(b"UNICODE\0").decode("utf-16-be"))
    assert [recipe["prompt"] for recipe in drawn] == (docs / "pictures.txt").read_text().splitlines()
    assert {recipe["seed"] for recipe in drawn} == {7}
    assert "hart generate --file docs/pictures.txt --seed 7" in (docs.parent / "README.md").read_text()
