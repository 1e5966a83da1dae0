"""The size of a preview."""

import pytest

from gateway.request.rules import preview_side


@pytest.mark.parametrize(
    ("width", "side_of_scale", "sides", "expected"),
    [
        (1024, 1, 64, 64),
        (1024, 5, 64, 80),
        (1024, 12, 64, 192),
        (1024, 16, 64, 256),
        (1024, 64, 64, 256),
        (128, 1, 8, 64),
        (128, 6, 8, 96),
        (128, 8, 8, 128),
        (32, 1, 8, 32),
    ],
)
def test_a_preview_is_as_small_as_its_scale(width: int, side_of_scale: int, sides: int, expected: int) -> None:
    assert preview_side(width, side_of_scale / sides) == expected


@pytest.mark.parametrize(("width", "side"), [(8, 8), (64, 64), (128, 128), (256, 128), (512, 128), (1024, 256)])
def test_preview_side_is_a_quarter_within_bounds(width: int, side: int) -> None:
    assert preview_side(width) == side
