"""Reads recipes from image files with Pillow, independently of the code under test."""

import io
import json

from PIL import Image

from common.recipe import EXIF_DESCRIPTION, PNG_KEY, Recipe


def read_recipe_json(file: bytes) -> str | None:
    """The recipe's JSON in an image file, or None."""
    with Image.open(io.BytesIO(file)) as image:
        return image.info.get(PNG_KEY) or image.getexif().get(EXIF_DESCRIPTION)


def read_recipe(file: bytes) -> Recipe | None:
    """The recipe in an image file, or None."""
    text = read_recipe_json(file)
    return Recipe(**json.loads(text)) if text else None
