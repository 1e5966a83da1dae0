"""model.image_file: pixels, files and recipes."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from common.image_formats import NAMES
from common.recipe import Recipe
from common.version import VERSION
from model.errors import SettingError
from model.image_file import encode
from tests.recipes import read_recipe

recipes = st.builds(
    Recipe,
    prompt=st.text(min_size=1),
    seed=st.integers(0, 2**64 - 1),
    guidance=st.floats(0, 20),
    more_smooth=st.booleans(),
    top_p=st.floats(0, 1),
    model=st.just("hart-tiny"),
    digest=st.just("ab" * 32),
    versions=st.just({"hart": VERSION}),
)
pixel_arrays = arrays.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3)))


@settings(deadline=None)  # a busy machine may pause
@given(pixel_arrays)
def test_png_is_lossless(pixels: np.ndarray) -> None:
    with Image.open(io.BytesIO(encode(pixels, "PNG"))) as image:
        image.verify()
    with Image.open(io.BytesIO(encode(pixels, "PNG"))) as image:
        assert np.array_equal(np.asarray(image), pixels)


@settings(max_examples=40, deadline=None)
@given(recipes, st.sampled_from(NAMES))
def test_every_format_carries_its_recipe(recipe: Recipe, format: str) -> None:
    file = encode(np.full((16, 24, 3), 128, np.uint8), format, recipe=recipe.to_json())
    assert read_recipe(file) == recipe
    with Image.open(io.BytesIO(file)) as image:
        assert (image.format, image.size) == (format, (24, 16))


@pytest.mark.parametrize("format", NAMES)
def test_metadata_can_be_omitted(format: str) -> None:
    file = encode(np.zeros((8, 8, 3), np.uint8), format)
    assert read_recipe(file) is None
    assert b"HART" not in file


def test_quality_changes_the_size() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for format in ("JPEG", "WEBP"):
        assert len(encode(noise, format, 10)) < len(encode(noise, format, 95))


@pytest.mark.parametrize(("format", "quality"), [("GIF", 92), ("PNG", 0), ("JPEG", 101)])
def test_invalid_format_or_quality_is_named(format: str, quality: int) -> None:
    with pytest.raises(SettingError, match=r"format: 'GIF'|quality: "):
        encode(np.zeros((8, 8, 3), np.uint8), format, quality)
