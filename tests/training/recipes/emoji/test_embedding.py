"""The embedding and the nearest neighbour: slightly changed originals are found, at any size."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.recipes.emoji.concepts import Concept
from training.recipes.emoji.embedding import ImageEmbedding, augmented, recall
from training.recipes.emoji.evaluate import as_markdown
from training.recipes.emoji.images import EmojiImages
from training.recipes.emoji.nearest_neighbour import NearestNeighbour
from training.recipes.emoji.probes import Probe
from training.recipes.emoji.scenes import Scene, paint


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
    embedding = ImageEmbedding.fit(art, dimensions=24)
    assert embedding.nearest(art).tolist() == list(range(40))
    doubled = art.repeat(2, axis=1).repeat(2, axis=2)
    assert embedding.nearest(doubled).tolist() == list(range(40))


def test_lightly_augmented_originals_are_found(art: NDArray[np.uint8]) -> None:
    embedding = ImageEmbedding.fit(art, dimensions=24)
    assert recall(embedding, art, [str(i) for i in range(40)]) >= 0.95
    changed = augmented(art, np.random.default_rng(1))
    assert np.abs(changed.astype(int) - art).mean() > 2  # they are changed indeed


def test_noise_is_found_by_chance_alone(art: NDArray[np.uint8]) -> None:
    embedding = ImageEmbedding.fit(art, dimensions=24)
    noise = np.random.default_rng(2).integers(0, 256, art.shape, dtype=np.uint8)
    assert float(np.mean(embedding.nearest(noise) == np.arange(40))) < 0.2


def test_the_judge_accepts_the_right_concept_in_any_style(art: NDArray[np.uint8]) -> None:
    judge = NearestNeighbour.__new__(NearestNeighbour)
    judge.codes, judge.embedding = ["1f534", "1f534", *map(str, range(38))], ImageEmbedding.fit(art, dimensions=24)
    probes = [Probe("a red circle", code, "name") for code in ("1f534", "1f534", "0", "0")]
    assert judge.right(art[[0, 1, 2, 3]], probes) == [True, True, True, False]


def test_the_judge_classifies_styles_grounds_and_the_concepts_of_a_scene(art: NDArray[np.uint8]) -> None:
    codes = [str(i) for i in range(40)]
    concepts = [Concept("flat" if i % 2 else "3d", f"concept {i}", (), "objects", "tools", codes[i]) for i in range(40)]
    pictures = EmojiImages(art, np.full(art.shape[:3], 255, np.uint8), np.arange(40), np.arange(0), concepts)
    judge = NearestNeighbour.__new__(NearestNeighbour)
    judge.codes, judge.embedding = codes, ImageEmbedding.fit(art, dimensions=24)
    judge.styles = [concept.style for concept in concepts]
    asked = [Probe("x", "0", "name", "3d"), Probe("x", "1", "name", "3d"), Probe("x", "2", "name")]
    assert judge.style_figures(art[:3], asked) == {"naming_a_style": 2, "right_style": 0.5}
    pair = Scene([(3, 0.25, 0.5, 0.5), (8, 0.75, 0.5, 0.5)], "white", "")
    drawn = paint(pictures, pair)
    assert judge.concepts_there(drawn, pair, pictures) == [True, True]
    assert judge.concepts_there(drawn[:, ::-1], pair, pictures) == [False, False]
    assert judge.ground(drawn) == "white"
    assert judge.ground(paint(pictures, Scene([(3, 0.5, 0.5, 0.5)], "light blue", ""))) == "light blue"


def test_figures_become_one_table() -> None:
    table = as_markdown({"a": {"b": 0.12345, "c": 3}, "styles": ["flat", "noto"]})
    assert table.splitlines()[2:] == ["| a.b | 0.1235 |", "| a.c | 3 |", "| styles | flat, noto |"]
