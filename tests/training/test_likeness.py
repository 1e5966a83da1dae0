"""Laws of the judge: it knows originals again when lightly changed, tells others apart, and reads any size."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data import Pictures, Thing
from training.evaluate import as_markdown
from training.judge import Judge
from training.likeness import Likeness, augmented, recall
from training.probes import Probe
from training.scenes import Scene, paint


@pytest.fixture(scope="module")
def art() -> NDArray[np.uint8]:
    """Forty pictures of two or three coloured boxes on white."""
    rng = np.random.default_rng(0)
    pictures = np.full((40, 64, 64, 3), 255, np.uint8)
    for picture in pictures:
        for _ in range(int(rng.integers(2, 4))):
            (top, left), (height, width) = rng.integers(4, 34, 2), rng.integers(12, 28, 2)
            picture[top : top + height, left : left + width] = rng.integers(0, 230, 3)
    return pictures


def test_every_picture_is_nearest_to_itself_at_any_size(art: NDArray[np.uint8]) -> None:
    likeness = Likeness.fit(art, dimensions=24)
    assert likeness.nearest(art).tolist() == list(range(40))
    doubled = art.repeat(2, axis=1).repeat(2, axis=2)
    assert likeness.nearest(doubled).tolist() == list(range(40))


def test_lightly_augmented_originals_are_found(art: NDArray[np.uint8]) -> None:
    likeness = Likeness.fit(art, dimensions=24)
    assert recall(likeness, art, [str(i) for i in range(40)]) >= 0.95
    changed = augmented(art, np.random.default_rng(1))
    assert np.abs(changed.astype(int) - art).mean() > 2  # they are changed indeed


def test_noise_is_found_by_chance_alone(art: NDArray[np.uint8]) -> None:
    likeness = Likeness.fit(art, dimensions=24)
    noise = np.random.default_rng(2).integers(0, 256, art.shape, dtype=np.uint8)
    assert float(np.mean(likeness.nearest(noise) == np.arange(40))) < 0.2


def test_the_judge_takes_the_right_thing_in_any_style(art: NDArray[np.uint8]) -> None:
    judge = Judge.__new__(Judge)
    judge.codes, judge.likeness = ["1f534", "1f534", *map(str, range(38))], Likeness.fit(art, dimensions=24)
    probes = [Probe("a red circle", code, "name") for code in ("1f534", "1f534", "0", "0")]
    assert judge.right(art[[0, 1, 2, 3]], probes) == [True, True, True, False]


def test_the_judge_tells_styles_grounds_and_the_things_of_a_scene(art: NDArray[np.uint8]) -> None:
    codes = [str(i) for i in range(40)]
    things = [Thing("flat" if i % 2 else "3d", f"thing {i}", (), "objects", "tools", codes[i]) for i in range(40)]
    pictures = Pictures(art, np.full(art.shape[:3], 255, np.uint8), things, np.arange(40), np.arange(0))
    judge = Judge.__new__(Judge)
    judge.codes, judge.likeness = codes, Likeness.fit(art, dimensions=24)
    judge.styles = [thing.style for thing in things]
    asked = [Probe("x", "0", "name", "3d"), Probe("x", "1", "name", "3d"), Probe("x", "2", "name")]
    assert judge.style_figures(art[:3], asked) == {"naming_a_style": 2, "right_style": 0.5}
    pair = Scene([(3, 0.25, 0.5, 0.5), (8, 0.75, 0.5, 0.5)], "white", "")
    drawn = paint(pictures, pair)
    assert judge.things_there(drawn, pair, pictures) == [True, True]
    assert judge.things_there(drawn[:, ::-1], pair, pictures) == [False, False]
    assert judge.ground(drawn) == "white"
    assert judge.ground(paint(pictures, Scene([(3, 0.5, 0.5, 0.5)], "light blue", ""))) == "light blue"


def test_figures_become_one_table() -> None:
    table = as_markdown({"a": {"b": 0.12345, "c": 3}, "styles": ["flat", "noto"]})
    assert table.splitlines()[2:] == ["| a.b | 0.1235 |", "| a.c | 3 |", "| styles | flat, noto |"]
