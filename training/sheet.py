"""Contact sheets: pictures side by side with words under them. Knows nothing of models."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

LABEL = 22
LARGEST = 256
"""Pictures of more pixels a side are shrunk to so many."""


def save_sheet(path: Path, pictures: NDArray[np.uint8], columns: int, labels: Sequence[str] | None = None) -> None:
    """uint8 pictures (n, S, S, 3), row by row, each with its label below, to one PNG."""
    pictures = np.stack([_shrunk(picture) for picture in pictures]) if pictures.shape[1] > LARGEST else pictures
    count, side = pictures.shape[:2]
    gap = LABEL if labels else 2
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * (side + 4), rows * (side + gap + 2)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for i, picture in enumerate(pictures):
        x, y = (i % columns) * (side + 4), (i // columns) * (side + gap + 2)
        sheet.paste(Image.fromarray(picture), (x, y))
        if labels:
            words = labels[i][:side]  # a letter is a pixel wide at least
            while font.getlength(words) > side and len(words) > 1:
                words = words[:-1]
            pen.text((x, y + side + 2), words, fill="black", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _shrunk(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(picture).resize((LARGEST, LARGEST), Image.Resampling.LANCZOS))
