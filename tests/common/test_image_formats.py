"""common.image_formats: the table of image formats, and code that cannot import it but must agree."""

import hart.results
import pytest
from hart.cli import grid, output_paths
from hart.v1 import decoder_pb2
from PIL import Image

from common.image_formats import FORMATS, SUFFIXES, ImageFormat, format_of
from model.image_file import encode
from runtime import image_messages
from tests.common.files import KINDS, file


def test_wire_formats_equal_the_table() -> None:
    assert decoder_pb2.ImageFormat.keys() == ["IMAGE_FORMAT_UNSPECIFIED", *(f"IMAGE_FORMAT_{name}" for name in FORMATS)]
    for format in FORMATS.values():
        assert image_messages.from_wire(image_messages.to_wire(format)) is format
    assert image_messages.from_wire(decoder_pb2.IMAGE_FORMAT_UNSPECIFIED).name == "PNG"


@pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
def test_pillow_has_the_same_mime_types_and_suffixes(format: ImageFormat) -> None:
    Image.init()
    assert Image.MIME[format.name] == format.mime
    for suffix in format.suffixes:
        assert Image.registered_extensions()[suffix] == format.name


@pytest.mark.parametrize("kind", KINDS)
def test_file_is_recognised_by_its_first_bytes(kind: str) -> None:
    found = format_of(file(kind))
    assert found is not None
    assert found.name == KINDS[kind][0]
    assert format_of(b"GIF89a" + bytes(20)) is None


@pytest.mark.parametrize("format", FORMATS.values(), ids=list(FORMATS))
def test_quality_changes_files_of_formats_that_have_one(format: ImageFormat) -> None:
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert (encode(pixels, format.name, 10) != encode(pixels, format.name, 90)) is format.has_quality


def test_client_has_the_same_formats_and_suffixes() -> None:
    # The client's wheel is self-contained: it cannot import the table.
    assert {name.lower(): image_messages.to_wire(format) for name, format in FORMATS.items()} == hart.results.FORMATS
    assert {suffix: format.name.lower() for suffix, format in SUFFIXES.items()} == hart.results.SUFFIXES
    assert {name: output_paths.ending(name) for name in hart.results.FORMATS} == {
        format.name.lower(): format.suffix for format in FORMATS.values()
    }
    assert {name.lower(): name for name in FORMATS} == grid._PILLOW
