"""What a transformer learns: pictures and their captions, from emoji art or from a folder. Knows no networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.album import read_captioned, shared_album
from training.contexts import phrase
from training.data import load_pictures, subset
from training.images import looked_at
from training.scenes import scenery
from training.things import choose


@dataclass(frozen=True)
class Material:
    """n pictures (n, S, S, 3) with captions; the last `scenes` of them are composed."""

    pixels: NDArray[np.uint8]
    words: list[list[str]]
    scenes: int
    shown: list[str]
    """Captions that sheets are drawn of."""


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` numbers, evenly spread."""
    return [i * count // min(count, most) for i in range(min(count, most))]


def emoji_material(
    side: int, styles: Sequence[str], things: int | None, variants: int, scenes: int, seed: int
) -> Material:
    """Emoji art: the best-known things alone, each with `variants` captions, and composed scenes."""
    pictures = load_pictures(side, styles)
    pictures = subset(pictures, [pictures.things[i] for i in choose(pictures.things, things)])
    composed, told = scenery(pictures, scenes, seed)
    words = phrase(pictures.things, variants, seed)
    shown = [words[i][-1] for i in spread(len(words), looked_at(24 if scenes else 32, side))] + told[:8]
    words += [[caption] for caption in told]
    return Material(np.concatenate([pictures.pixels, composed]), words, scenes, shown)


def own_material(folder: Path, side: int) -> Material:
    """A folder's captioned pictures, which stay on disk. Raises FolderError."""
    given = read_captioned(folder, side, shared_album(folder, side))
    shown = [given.words[i][0] for i in spread(len(given.words), looked_at(32, side))]
    return Material(given.pixels, given.words, 0, shown)
