"""Says what a picture shows, by the nearest picture of the whole data set; knows nothing of models."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data import Pictures
from training.likeness import Likeness, recall
from training.probes import Probe
from training.scenes import GROUNDS, Scene

EDGE = 6  # a picture's border of one part in so many shows its ground


class Judge:
    """One fixed image embedding over all pictures of all styles; `recall` shows how far to trust it."""

    def __init__(self, pictures: Pictures) -> None:
        self.codes = [thing.hexcode for thing in pictures.things]
        self.styles = [thing.style for thing in pictures.things]
        self.likeness = Likeness.fit(pictures.pixels)
        self.recall = recall(self.likeness, pictures.pixels, self.codes)

    def nearest(self, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """uint8 (n, side, side, 3) -> the number of the most similar picture of the data set, (n,)."""
        return self.likeness.nearest(pixels)

    def right(self, pixels: NDArray[np.uint8], probes: Sequence[Probe]) -> list[bool]:
        """uint8 (n, side, side, 3) and what they should show -> whether each does, in any style."""
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
        """The named ground whose colour is nearest to the median of the corners of a picture (side, side, 3)."""
        n = max(1, len(pixels) // EDGE)
        corners = [pixels[:n, :n], pixels[:n, -n:], pixels[-n:, :n], pixels[-n:, -n:]]
        seen = np.median(np.concatenate([corner.reshape(-1, 3) for corner in corners]), axis=0)
        return min(GROUNDS, key=lambda name: float(np.square(seen - GROUNDS[name]).sum()))

    def things_there(self, pixels: NDArray[np.uint8], scene: Scene, pictures: Pictures) -> list[bool]:
        """Whether each piece of a scene on white shows its thing, cut out of a picture where it should lie."""
        side = len(pixels)
        wanted, cuts = [], []
        for index, x, y, share in scene.pieces:
            left, top, size = scene.place(side, x, y, share)
            cut = Image.fromarray(pixels[top : top + size, left : left + size])
            cuts.append(np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC)))
            wanted.append(pictures.things[index].hexcode)
        return [self.codes[i] == code for i, code in zip(self.nearest(np.stack(cuts)), wanted, strict=True)]
