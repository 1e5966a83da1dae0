"""Files are marked as made by a generative model, where standard tools find it (common.provenance)."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from common import provenance, recipe
from common.image_header import inspect
from tests.common.files import KINDS, file

NAMESPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "iptc": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
}
RECIPE = '{"prompt": "a red heart"}'


def source_type(data: bytes) -> str | None:
    """IPTC's digital source type, as an XML parser reads the XMP that Pillow finds."""
    xmp = Image.open(io.BytesIO(data)).info["xmp"]
    text = xmp.decode() if isinstance(xmp, bytes) else xmp
    found = ElementTree.fromstring(text.strip()).find(".//iptc:DigitalSourceType", NAMESPACES)  # noqa: S314 - our own
    return None if found is None else found.text


@pytest.mark.parametrize("kind", KINDS)
def test_the_mark_is_xmp_and_leaves_the_pixels_alone(kind: str) -> None:
    data = file(kind)
    marked = provenance.mark(data)
    assert source_type(marked) == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert Image.open(io.BytesIO(marked)).tobytes() == Image.open(io.BytesIO(data)).tobytes()
    assert inspect(marked) == inspect(data)
    assert (provenance.is_marked(data), provenance.is_marked(marked)) == (False, True)


@pytest.mark.parametrize("kind", KINDS)
def test_mark_and_recipe_stand_beside_each_other_in_either_order(kind: str) -> None:
    data = file(kind)
    for both in (recipe.write(provenance.mark(data), RECIPE), provenance.mark(recipe.write(data, RECIPE))):
        assert source_type(both) is not None
        image = Image.open(io.BytesIO(both))
        image.load()
        assert image.info.get("recipe", image.getexif().get(recipe.EXIF_DESCRIPTION)) == RECIPE


def test_a_file_with_alpha_keeps_it() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (24, 16), (9, 99, 199, 77)).save(out, "WEBP", lossless=True)
    marked = provenance.mark(out.getvalue())
    assert Image.open(io.BytesIO(marked)).mode == "RGBA"


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_what_is_no_image_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="bytes"):
        provenance.mark(data)
