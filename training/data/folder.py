"""A folder of images: their names, captions and squares.

`cat.png` beside `cat.txt`, one caption a line; or `captions.tsv` with a file name, a tab and a caption a line.
"""

import csv
import io
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from common import git_lfs
from model.errors import ModelError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
TABLE = "captions.tsv"
MAX_FAULTS = 100
"""An error names so many faults and counts the others."""


class FolderError(ModelError):
    """A folder that cannot be trained on; the message names every file at fault."""


def captions_of(folder: Path) -> dict[str, list[str]]:
    """Each image's file name with its captions, at least one. Raises FolderError."""
    _require(folder)
    has_table = (folder / TABLE).exists()
    found, faults = _captions_of_table(folder / TABLE) if has_table else _captions_beside(folder)
    _raise(faults, folder, [*found, *(() if has_table else _images_in(folder))])
    if not found:
        raise FolderError(f"{folder}: no images ({', '.join(SUFFIXES)}) with captions in it")
    return found


def names_of(folder: Path) -> list[str]:
    """File names of all images, those of the table first; captions may be missing. Raises FolderError."""
    _require(folder)
    captions, faults = _captions_of_table(folder / TABLE) if (folder / TABLE).exists() else ({}, [])
    found = list(dict.fromkeys([*captions, *_images_in(folder)]))
    _raise(faults, folder, found)
    if not found:
        raise FolderError(f"{folder}: no images ({', '.join(SUFFIXES)}) in it")
    return found


def read_square(path: Path) -> Image.Image:
    """An image's middle square, upright, on white. Raises FolderError."""
    try:
        if git_lfs.is_pointer(path):
            raise FolderError(f"{path}: {git_lfs.ADVICE}")
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(_in_bytes(file)).convert("RGBA")
    except FolderError:
        raise
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


def _captions_of_table(path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """The captions by file name, and a line for every fault."""
    found: dict[str, list[str]] = {}
    faults: list[str] = []
    rows = csv.reader(io.StringIO(_text_of(path, faults), newline=""), delimiter="\t", strict=True)
    try:
        for number, row in enumerate(rows, 1):
            if len(row) != 2 or not row[1].strip():
                faults.append(f"{path}, line {number}: expected a file name, a tab and a caption, got {row}")
            elif not (path.parent / row[0]).is_file():
                faults.append(f"{path}, line {number}: {row[0]}: no such image")
            else:
                found.setdefault(row[0], []).append(row[1].strip())
    except csv.Error as error:
        faults.append(f"{path}: not a tab-separated table: {error}")
    return found, faults


def _captions_beside(folder: Path) -> tuple[dict[str, list[str]], list[str]]:
    """The captions by file name, and a line for every fault."""
    found: dict[str, list[str]] = {}
    faults: list[str] = []
    for name in _images_in(folder):
        path = (folder / name).with_suffix(".txt")
        if not path.exists():
            faults.append(f"{folder / name}: no caption; expected {path.name} beside it, or {TABLE} in the folder")
            continue
        before = len(faults)
        lines = [line.strip() for line in _text_of(path, faults).splitlines() if line.strip()]
        if lines:
            found[name] = lines
        elif len(faults) == before:
            faults.append(f"{path}: empty; expected a caption a line")
    return found, faults


def _raise(faults: list[str], folder: Path, names: list[str]) -> None:
    """Raises one FolderError with all faults, those of the images too, so that one run names them all."""
    if not faults:
        return
    for name in dict.fromkeys(names):
        try:
            read_square(folder / name)
        except FolderError as error:
            faults.append(str(error))
    raise FolderError(listed(faults, f"{folder}: {{}} more faults"))


def listed(lines: list[str], others: str, max_lines: int = MAX_FAULTS) -> str:
    """The first lines, and the number of the others."""
    more = len(lines) - max_lines
    return "\n".join(lines[:max_lines] + ([others.format(more)] if more > 0 else []))


def _text_of(path: Path, faults: list[str]) -> str:
    """The text of a file; empty, and a fault, if it is a Git LFS pointer or not UTF-8."""
    if git_lfs.is_pointer(path):
        faults.append(f"{path}: {git_lfs.ADVICE}")
        return ""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        faults.append(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}")
        return ""
