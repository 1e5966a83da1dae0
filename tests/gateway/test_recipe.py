"""Recipes in finished files: readable by an independent library, and the pixels untouched."""

import io
import time

import pytest
from hart.v1 import decoder_pb2
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway import imagesize, recipe

EXIF_DESCRIPTION = 0x010E
RECIPE = decoder_pb2.Recipe(
    prompt='a "red" ♥ \U0001f600',
    seed=2**64 - 1,
    guidance=4.5,
    more_smooth=True,
    model={"name": "tiny", "digest": "ab"},
)
KINDS = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {"quality": 92}),
    "webp": ("WEBP", {}),
    "webp lossless": ("WEBP", {"lossless": True}),
    "webp with exif": ("WEBP", {"exif": b"Exif\0\0"}),
}


def file(kind: str, size: tuple[int, int] = (33, 17)) -> bytes:
    format, options = KINDS[kind]
    image = Image.effect_noise(size, 80).convert("RGB")
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + bytes(8 * 2**20),
        b"\xff\xd8" + b"\xff\xe0\0\0" * 2**20,
        b"RIFF\0\0\0\0WEBPVP8 " + bytes(20),
        b"RIFF\0\0\0\0WEBPVP8L",
    ],
    ids=["zeros", "segments", "no width", "cut"],
)
def test_a_file_that_is_none_is_refused_at_once(data):
    begun = time.monotonic()
    with pytest.raises(ValueError, match="bytes"):
        recipe.write(data, RECIPE)
    assert time.monotonic() - begun < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_is_found_again_and_the_pixels_stay(kind):
    before = file(kind)
    after = recipe.write(before, RECIPE)
    with Image.open(io.BytesIO(after)) as image, Image.open(io.BytesIO(before)) as original:
        found = image.info.get("recipe") or image.getexif().get(EXIF_DESCRIPTION)
        assert found == recipe.to_json(RECIPE)
        assert image.tobytes() == original.tobytes()
        image.load()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (33, 17), (1024, 3)])
def test_the_header_states_the_size(kind, size):
    format, width, height = imagesize.inspect(file(kind, size))
    assert (width, height) == size
    assert decoder_pb2.ImageFormat.Name(format) == f"IMAGE_FORMAT_{KINDS[kind][0]}"


def test_the_json_is_the_one_that_the_one_process_pipeline_writes():
    from model.image_file import Recipe

    other = Recipe(RECIPE.prompt, RECIPE.seed, 4.5, True, 0.0, "tiny", "ab", {})
    assert recipe.to_json(RECIPE) == other.to_json()


@given(st.binary(max_size=60) | st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF0000WEBP"]).flatmap(
    lambda head: st.binary(max_size=30).map(lambda tail: head + tail)))  # fmt: skip
def test_bytes_that_are_no_picture_are_refused_and_never_crash(data):
    try:
        imagesize.inspect(data)
    except ValueError:
        return
    assert data[:2] in (b"\x89P", b"\xff\xd8", b"RI")
