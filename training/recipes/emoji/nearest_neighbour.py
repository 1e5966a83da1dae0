"""Classifies images by the nearest image of the whole data set."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.recipes.emoji.embedding import ImageEmbedding, recall
from training.recipes.emoji.images import EmojiImages
from training.recipes.emoji.probes import Probe
from training.recipes.emoji.scenes import GROUNDS, Scene

EDGE = 6  # this part of an image's side at each corner is its ground


class NearestNeighbour:
    """One fixed embedding over all images of all styles; `recall` measures its reliability."""

    def __init__(self, images: EmojiImages) -> None:
        self.codes = [concept.hexcode for concept in images.concepts]
        self.styles = [concept.style for concept in images.concepts]
        self.embedding = ImageEmbedding.fit(images.pixels)
        self.recall = recall(self.embedding, images.pixels, self.codes)

    def nearest(self, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """uint8 (n, side, side, 3) -> the number of the most similar image of the data set, (n,)."""
        return self.embedding.nearest(pixels)

    def right(self, pixels: NDArray[np.uint8], probes: Sequence[Probe]) -> list[bool]:
        """uint8 (n, side, side, 3) and the concepts they should show -> whether each does, in any style."""
        found = self.nearest(pixels)
        return [self.codes[i] == probe.hexcode for i, probe in zip(found, probes, strict=True)]

    def style_figures(self, pixels: NDArray[np.uint8], probes: Sequence[Probe]) -> dict[str, float]:
        """Of the prompts that name a style, how many there are and the share drawn in that style."""
        named = [
            self.styles[i] == probe.style
            for i, probe in zip(self.nearest(pixels), probes, strict=True)
            if probe.style is not None
        ]
        return {"naming_a_style": float(len(named)), "right_style": float(np.mean(named))} if named else {}

    def ground(self, pixels: NDArray[np.uint8]) -> str:
        """The named ground whose colour is nearest to the median of the corners of an image (side, side, 3)."""
        n = max(1, len(pixels) // EDGE)
        corners = [pixels[:n, :n], pixels[:n, -n:], pixels[-n:, :n], pixels[-n:, -n:]]
        seen = np.median(np.concatenate([corner.reshape(-1, 3) for corner in corners]), axis=0)
        return min(GROUNDS, key=lambda name: float(np.square(seen - GROUNDS[name]).sum()))

    def concepts_there(self, pixels: NDArray[np.uint8], scene: Scene, images: EmojiImages) -> list[bool]:
        """Whether each piece of a scene on white shows its concept, cropped from where it should lie."""
        side = len(pixels)
        wanted, cuts = [], []
        for index, x, y, share in scene.pieces:
            left, top, size = scene.place(side, x, y, share)
            cut = Image.fromarray(pixels[top : top + size, left : left + size])
            cuts.append(np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC)))
            wanted.append(images.concepts[index].hexcode)
        return [self.codes[i] == code for i, code in zip(self.nearest(np.stack(cuts)), wanted, strict=True)]
