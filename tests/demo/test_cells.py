"""The page shows images in cells whose side is a multiple of the bundled model's."""

import re

import pytest

from model.checkpoint import Checkpoint, bundled

page = pytest.importorskip("demo.page", reason="`make demo` installs what the page imports")


def test_a_cell_is_a_whole_multiple_of_the_bundled_models_side() -> None:
    sides = {int(side) for side in re.findall(r"#pictures[^{]*\{[^}]*?(\d+)px", page.CSS)}
    (side,) = sides
    assert side % Checkpoint.open(bundled()).tokenizer_config.image_side == 0
    assert side > 128
