"""Sample grids: images side by side with labels under them, in one PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

LABEL = 22
MAX_SIDE = 256
"""Larger images are shrunk to so many pixels a side."""


def save_sample_grid(path: Path, images: NDArray[np.uint8], columns: int, labels: Sequence[str] | None = None) -> None:
    """uint8 images (n, S, S, 3), row by row, each with its label below, to one PNG."""
    images = np.stack([_shrunk(image) for image in images]) if images.shape[1] > MAX_SIDE else images
    count, side = images.shape[:2]
    gap = LABEL if labels else 2
    rows = -(-count // columns)
    grid = Image.new("RGB", (columns * (side + 4), rows * (side + gap + 2)), "white")
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(10)
    for i, image in enumerate(images):
        x, y = (i % columns) * (side + 4), (i // columns) * (side + gap + 2)
        grid.paste(Image.fromarray(image), (x, y))
        if labels:
            label = labels[i][:side]  # a letter is at least a pixel wide
            while font.getlength(label) > side and len(label) > 1:
                label = label[:-1]
            pen.text((x, y + side + 2), label, fill="black", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.save(path)


def _shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS))
