"""common.image_header: the header of an image file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.image_formats import FORMATS, format_of
from common.image_header import inspect
from tests.common.files import KINDS, file

BEGINNINGS = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF0000WEBP"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (33, 17), (1024, 3)])
def test_header_states_format_and_size(kind: str, size: tuple[int, int]) -> None:
    header = inspect(file(kind, size))
    assert (header.width, header.height) == size
    assert header.format is FORMATS[KINDS[kind][0]]


@given(
    st.binary(max_size=60)
    | st.sampled_from(BEGINNINGS).flatmap(lambda head: st.binary(max_size=30).map(lambda tail: head + tail))
)
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    try:
        header = inspect(data)
    except ValueError:
        return
    assert header.format is format_of(data)
