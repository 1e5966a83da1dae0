"""Scenes composed of images with opacity, each with its caption.

A scene is one concept on a coloured ground, one concept with a size and a place, or two or three concepts beside or
above one another. Deterministic in `rng`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from training.data.english import plain, pluralised, with_article
from training.recipes.emoji.captions import style_words
from training.recipes.emoji.concepts import Concept
from training.recipes.emoji.images import EmojiImages

GROUNDS = {
    "white": (255, 255, 255),
    "black": (24, 24, 27),
    "gray": (156, 163, 175),
    "red": (220, 60, 60),
    "orange": (249, 146, 60),
    "yellow": (250, 214, 80),
    "green": (88, 190, 110),
    "blue": (80, 140, 240),
    "light blue": (176, 216, 250),
    "purple": (160, 110, 220),
    "pink": (248, 176, 208),
    "brown": (150, 105, 75),
}
PLACES = {  # centre of the concept as a share of width and height
    "in the top left corner": (0.25, 0.25),
    "in the top right corner": (0.75, 0.25),
    "in the bottom left corner": (0.25, 0.75),
    "in the bottom right corner": (0.75, 0.75),
    "on the left": (0.25, 0.5),
    "on the right": (0.75, 0.5),
    "at the top": (0.5, 0.25),
    "at the bottom": (0.5, 0.75),
}
SIZES = {"small": 0.42, "tiny": 0.28}
# Groups with short names and art that is legible at half size.
SIMPLE_GROUPS = frozenset({"animals-nature", "food-drink", "travel-places", "activities", "objects", "smileys-emotion"})
Piece = tuple[int, float, float, float]  # index, centre x, centre y, share of the side


@dataclass(frozen=True)
class Scene:
    """What lies where on which ground, and the words for it."""

    pieces: list[Piece]
    ground: str
    caption: str

    @staticmethod
    def place(side: int, x: float, y: float, share: float) -> tuple[int, int, int]:
        """Left, top and size in pixels of a piece on an image of this side."""
        size = round(side * share)
        left, top = (min(max(round(centre * side - size / 2), 0), side - size) for centre in (x, y))
        return left, top, size


def compose(
    images: EmojiImages, rng: np.random.Generator, indices: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.uint8], str]:
    """A scene of the chosen images (all by default): uint8 (side, side, 3) and its caption in lower case."""
    scene = plan(images, rng, indices)
    return paint(images, scene), scene.caption


def scenery(images: EmojiImages, count: int, seed: int) -> tuple[NDArray[np.uint8], list[str]]:
    """`count` composed scenes, uint8 (count, S, S, 3), and their captions."""
    rng = np.random.default_rng(seed)
    scenes = [compose(images, rng) for _ in tqdm(range(count), desc="scenes", disable=not count)]
    return np.array([p for p, _ in scenes], np.uint8).reshape(-1, *images.pixels.shape[1:]), [w for _, w in scenes]


def plan(images: EmojiImages, rng: np.random.Generator, indices: NDArray[np.int64] | None = None) -> Scene:
    """A scene without its pixels."""
    chosen = np.arange(len(images.concepts)) if indices is None else indices
    first = _draw(images, rng, chosen, None)
    kinds: tuple[Callable[..., tuple[list[Piece], str]], ...] = (_ground, _ground, _ground, _placed, _pair, _trio)
    kind = kinds[int(rng.integers(len(kinds)))]
    pieces, words = kind(images, rng, chosen, first)
    plain_ground = kind is not _ground and rng.random() < 0.6
    ground = "white" if plain_ground else list(GROUNDS)[int(rng.integers(1, len(GROUNDS)))]
    if not plain_ground:
        words = f"{words} on {with_article(ground)} background"
    style = style_words(images.concepts[first], rng)
    return Scene(pieces, ground, f"{words}, {style}" if style else words)


def paint(images: EmojiImages, scene: Scene) -> NDArray[np.uint8]:
    """uint8 (side, side, 3): the scene's pieces on its ground, in their order."""
    side = images.pixels.shape[1]
    canvas = np.empty((side, side, 3), np.float32)
    canvas[:] = GROUNDS[scene.ground]
    for index, x, y, share in scene.pieces:
        left, top, size = scene.place(side, x, y, share)
        colour = np.asarray(Image.fromarray(images.pixels[index]).resize((size, size), Image.Resampling.BOX))
        alpha = np.asarray(Image.fromarray(images.alpha[index]).resize((size, size), Image.Resampling.BOX))
        spot = canvas[top : top + size, left : left + size]
        see_through = 1 - alpha[..., None].astype(np.float32) / 255
        spot[:] = colour - 255 * see_through + see_through * spot  # the images lie on white: remove the white
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _draw(images: EmojiImages, rng: np.random.Generator, chosen: NDArray[np.int64], like: Concept | None) -> int:
    """An index among the simple groups, of the same style as `like` and another concept than it."""
    for _ in range(200):
        index = int(chosen[int(rng.integers(len(chosen)))])
        concept = images.concepts[index]
        if concept.group in SIMPLE_GROUPS and (
            like is None or (concept.style == like.style and concept.name != like.name)
        ):
            return index
    raise ValueError("no second image of the same style and a simple group")


def _name(images: EmojiImages, index: int) -> str:
    return with_article(plain(images.concepts[index].name))


def _ground(images: EmojiImages, rng: np.random.Generator, _: NDArray[np.int64], first: int) -> tuple[list[Piece], str]:
    return [(first, 0.5, 0.5, float(rng.choice([0.8, 0.9])))], _name(images, first)


def _placed(images: EmojiImages, rng: np.random.Generator, _: NDArray[np.int64], first: int) -> tuple[list[Piece], str]:
    size = list(SIZES)[int(rng.integers(len(SIZES)))]
    place = list(PLACES)[int(rng.integers(len(PLACES)))]
    name = plain(images.concepts[first].name)
    if rng.random() < 0.3:
        return [(first, 0.5, 0.5, SIZES[size])], f"a {size} {name}"
    return [(first, *PLACES[place], SIZES[size])], f"a {size} {name} {place}"


def _pair(
    images: EmojiImages, rng: np.random.Generator, chosen: NDArray[np.int64], first: int
) -> tuple[list[Piece], str]:
    second = _draw(images, rng, chosen, images.concepts[first])
    one, two = _name(images, first), _name(images, second)
    if rng.random() < 0.7:
        words = ("{} and {}", "{} next to {}", "{} to the left of {}", "{} beside {}")[int(rng.integers(4))]
        return [(first, 0.25, 0.5, 0.5), (second, 0.75, 0.5, 0.5)], words.format(one, two)
    words = ("{} above {}", "{} over {}", "{} on top of {}")[int(rng.integers(3))]
    return [(first, 0.5, 0.25, 0.5), (second, 0.5, 0.75, 0.5)], words.format(one, two)


def _trio(
    images: EmojiImages, rng: np.random.Generator, chosen: NDArray[np.int64], first: int
) -> tuple[list[Piece], str]:
    if rng.random() < 0.5:
        name = plain(images.concepts[first].name)
        return [(first, x, 0.5, 0.333) for x in (0.17, 0.5, 0.83)], f"three {pluralised(name)}"
    second = _draw(images, rng, chosen, images.concepts[first])
    third = _draw(images, rng, chosen, images.concepts[second])
    words = f"{_name(images, first)}, {_name(images, second)} and {_name(images, third)}"
    return [(first, 0.25, 0.27, 0.5), (second, 0.75, 0.27, 0.5), (third, 0.5, 0.75, 0.5)], words
