"""Known images and a judge of them."""

import numpy as np

from training.recipes.emoji.concepts import Concept
from training.recipes.emoji.embedding import ImageEmbedding
from training.recipes.emoji.images import EmojiImages
from training.recipes.emoji.nearest_neighbour import NearestNeighbour


def known(count: int = 12, side: int = 32) -> EmojiImages:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    concepts = [Concept("noto" if i % 2 else "flat", f"name {i}", (), "objects", "tools", str(i)) for i in range(count)]
    every = np.arange(count)
    return EmojiImages(pixels, np.full(pixels.shape[:3], 255, np.uint8), every, every[:0], concepts)


def judge_of(images: EmojiImages) -> NearestNeighbour:
    judge = NearestNeighbour.__new__(NearestNeighbour)
    judge.embedding = ImageEmbedding.fit(images.pixels, dimensions=8)
    judge.codes = [concept.hexcode for concept in images.concepts]
    return judge
