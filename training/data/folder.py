"""A folder of images: their names, captions and squares.

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
    """A folder that cannot be trained on; the message names every file at fault."""


def captions_of(folder: Path) -> dict[str, list[str]]:
    """Each image's file name with its captions, at least one. Raises FolderError."""
    _require(folder)
    found = _captions_of_table(folder / TABLE) if (folder / TABLE).exists() else _captions_beside(folder)
    if not found:
        raise FolderError(f"{folder}: no images ({', '.join(SUFFIXES)}) with captions in it")
    return found


def names_of(folder: Path) -> list[str]:
    """File names of all images, those of the table first; captions may be missing. Raises FolderError."""
    _require(folder)
    table = folder / TABLE
    found = list(dict.fromkeys([*(_captions_of_table(table) if table.exists() else ()), *_images_in(folder)]))
    if not found:
        raise FolderError(f"{folder}: no images ({', '.join(SUFFIXES)}) in it")
    return found


def read_square(path: Path) -> Image.Image:
    """An image's middle square, upright, on white. Raises FolderError."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(_in_bytes(file)).convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FolderError(f"{path}: cannot be read as an image: {error}") from None
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    width, height = white.size
    square = min(width, height)
    left, top = (width - square) // 2, (height - square) // 2
    return white.convert("RGB").crop((left, top, left + square, top + square))


def _in_bytes(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits; `convert` alone would clip it to white."""
    if not image.mode.startswith("I"):
        return image
    return image.convert("I").point(lambda grey: grey / 257).convert("L")


def _require(folder: Path) -> None:
    if not folder.is_dir():
        raise FolderError(f"{folder}: no such folder")


def _images_in(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _captions_of_table(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    faults = []
    with _readable(path), path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t", strict=True), 1):
            if len(row) != 2 or not row[1].strip():
                faults.append(f"{path}, line {number}: expected a file name, a tab and a caption, got {row}")
            elif not (path.parent / row[0]).is_file():
                faults.append(f"{path}, line {number}: {row[0]}: no such image")
            else:
                found.setdefault(row[0], []).append(row[1].strip())
    _raise(faults)
    return found


def _captions_beside(folder: Path) -> dict[str, list[str]]:
    found, faults = {}, []
    for name in _images_in(folder):
        try:
            found[name] = _captions_in((folder / name).with_suffix(".txt"), folder / name)
        except FolderError as error:
            faults.append(str(error))
    _raise(faults)
    return found


def _captions_in(path: Path, image: Path) -> list[str]:
    if not path.exists():
        raise FolderError(f"{image}: no caption; expected {path.name} beside it, or {TABLE} in the folder")
    with _readable(path):
        text = path.read_text("utf-8-sig")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise FolderError(f"{path}: empty; expected a caption a line")
    return lines


def _raise(faults: list[str]) -> None:
    """All faults in one error, so that one run names them all."""
    if faults:
        raise FolderError("\n".join(faults))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Names the file that is not UTF-8 text, or whose quotes do not close."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise FolderError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    except csv.Error as error:
        raise FolderError(f"{path}: not a tab-separated table: {error}") from None
