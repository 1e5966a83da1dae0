"""A folder of somebody's pictures: their names, captions and squares. Knows no networks and keeps nothing.

`cat.png` beside `cat.txt`, one caption a line; or `captions.tsv` with a file name, a tab and a caption a line.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from model.errors import ModelError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
TABLE = "captions.tsv"


class FolderError(ModelError):
    """A folder that cannot be trained on; the message names the file."""


def captions_of(folder: Path) -> dict[str, list[str]]:
    """Each picture's file name with its captions, one at least. Raises FolderError."""
    _require(folder)
    found = _captions_of_table(folder / TABLE) if (folder / TABLE).exists() else _captions_beside(folder)
    if not found:
        raise FolderError(f"{folder}: no pictures ({', '.join(SUFFIXES)}) with captions in it")
    return found


def names_of(folder: Path) -> list[str]:
    """File names of all pictures, those of the table first: captions may be missing. Raises FolderError."""
    _require(folder)
    table = folder / TABLE
    found = list(dict.fromkeys([*(_captions_of_table(table) if table.exists() else ()), *_pictures_in(folder)]))
    if not found:
        raise FolderError(f"{folder}: no pictures ({', '.join(SUFFIXES)}) in it")
    return found


def read_square(path: Path) -> Image.Image:
    """A picture's middle square, upright, on white. Raises FolderError."""
    try:
        with Image.open(path) as image:
            picture = ImageOps.exif_transpose(_in_bytes(image)).convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FolderError(f"{path}: not a picture that can be read: {error}") from None
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    width, height = white.size
    square = min(width, height)
    left, top = (width - square) // 2, (height - square) // 2
    return white.convert("RGB").crop((left, top, left + square, top + square))


def _in_bytes(image: Image.Image) -> Image.Image:
    """Grey of 16 bits brought to 8; converting alone would make all of it white."""
    if not image.mode.startswith("I"):
        return image
    return image.convert("I").point(lambda grey: grey / 257).convert("L")


def _require(folder: Path) -> None:
    if not folder.is_dir():
        raise FolderError(f"{folder}: no such folder")


def _pictures_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _captions_of_table(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with _readable(path), path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t", strict=True), 1):
            if len(row) != 2 or not row[1].strip():
                raise FolderError(f"{path}, line {number}: expected a file name, a tab and a caption, got {row}")
            if not (path.parent / row[0]).is_file():
                raise FolderError(f"{path}, line {number}: {row[0]}: no such picture")
            found.setdefault(row[0], []).append(row[1].strip())
    return found


def _captions_beside(folder: Path) -> dict[str, list[str]]:
    found = {}
    for name in _pictures_in(folder):
        beside = (folder / name).with_suffix(".txt")
        if not beside.exists():
            raise FolderError(
                f"{folder / name}: no caption; expected {beside.name} beside it, or {TABLE} in the folder"
            )
        with _readable(beside):
            text = beside.read_text("utf-8-sig")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            raise FolderError(f"{beside}: empty; expected a caption a line")
        found[name] = lines
    return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Names the file that is not text in UTF-8, or whose quotes do not close."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise FolderError(f"{path}: not text in UTF-8: {error.reason} at byte {error.start}") from None
    except csv.Error as error:
        raise FolderError(f"{path}: not a table with tabs: {error}") from None
