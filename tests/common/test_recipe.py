"""common.recipe: recipes in finished files, readable by an independent library, with unchanged pixels."""

import io
from typing import Any

import pytest
from PIL import Image

from common import recipe
from common.limits import MAX_RECIPE_BYTES
from common.recipe import Recipe
from tests.common.files import KINDS, file
from tests.recipes import read_recipe, read_recipe_json

RECIPE = Recipe(
    prompt='a "red" ♥ \U0001f600',
    seed=2**64 - 1,
    guidance=4.5,
    more_smooth=True,
    top_p=0.0,
    residual_temperature=1.0,
    model="tiny",
    digest="ab",
    versions={"hart": "0"},
)


@pytest.mark.parametrize("kind", KINDS)
def test_recipe_round_trips_and_keeps_the_pixels(kind: str) -> None:
    before = file(kind)
    after = recipe.write(before, RECIPE.to_json())
    assert read_recipe(after) == RECIPE
    assert read_recipe(before) is None
    with Image.open(io.BytesIO(after)) as image, Image.open(io.BytesIO(before)) as original:
        assert image.tobytes() == original.tobytes()
        image.load()


@pytest.mark.parametrize("kind", KINDS)
def test_recipe_over_the_byte_limit_is_refused(kind: str) -> None:
    longest = "x" * MAX_RECIPE_BYTES
    assert read_recipe_json(recipe.write(file(kind), longest)) == longest
    with pytest.raises(ValueError, match="60001 bytes; at most 60000"):
        recipe.write(file(kind), longest + "x")


def test_recipe_in_a_non_image_file_is_refused() -> None:
    with pytest.raises(ValueError, match="3 bytes that are no PNG, JPEG, WEBP file"):
        recipe.write(b"GIF", RECIPE.to_json())


@pytest.mark.parametrize("field", [{"seed": 7}, {"prompt": "a"}, {"versions": {}}])
def test_recipe_json_has_a_fixed_order_and_is_ascii(field: dict[str, Any]) -> None:
    fields = {name: getattr(RECIPE, name) for name in Recipe.__dataclass_fields__} | field
    text = Recipe(**dict(reversed(fields.items()))).to_json()
    assert text == Recipe(**fields).to_json()
    assert text.isascii()
