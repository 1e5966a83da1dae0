"""What the trainers learn, and where the commands get it from: a folder, or a recipe's own source."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.core.images import sample_size
from training.data.image_cache import read_captioned, read_images, shared_cache
from training.data.image_set import ImageSet

GRID_IMAGES = 32


@dataclass(frozen=True)
class Dataset:
    """n images (n, S, S, 3) with captions; the last `scenes` of them are composed of several concepts."""

    pixels: NDArray[np.uint8]
    captions: list[list[str]]
    scenes: int
    shown: list[str]
    """Captions for sample grids."""


class Source(Protocol):
    """Where a training command gets images from. `options.side` is set before images are loaded."""

    package: str
    """The commands' package: `python -m PACKAGE.tokenizer`."""

    def add_options(self, parser: argparse.ArgumentParser) -> None: ...

    def check_options(self, parser: argparse.ArgumentParser, options: argparse.Namespace) -> None: ...


class ImageSource(Source, Protocol):
    """Of the tokenizer's training."""

    distinct: bool
    """Whether an image may appear only once in a batch."""

    def load(self, options: argparse.Namespace) -> ImageSet: ...


class DatasetSource(Source, Protocol):
    """Of the transformer's training."""

    def load(self, options: argparse.Namespace) -> Dataset: ...


def spread(count: int, max_count: int) -> list[int]:
    """Up to `max_count` of the numbers below `count`, evenly spaced."""
    return [i * count // min(count, max_count) for i in range(min(count, max_count))]


def folder_dataset(folder: Path, side: int) -> Dataset:
    """A folder's captioned images, mapped from disk. Raises FolderError."""
    given = read_captioned(folder, side, shared_cache(folder, side))
    shown = [given.captions[i][0] for i in spread(len(given.captions), sample_size(GRID_IMAGES, side))]
    return Dataset(given.pixels, given.captions, 0, shown)


class _Folder:
    package = "training"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--images", required=True, help="folder of images; docs/training.md says what is in it")

    def check_options(self, parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
        pass


class FolderImages(_Folder):
    """`--images FOLDER`; captions are not read."""

    distinct = True  # few images are often drawn twice

    def load(self, options: argparse.Namespace) -> ImageSet:
        folder = Path(options.images)
        return read_images(folder, options.side, shared_cache(folder, options.side), min_train=options.batch)


class FolderDataset(_Folder):
    """`--images FOLDER` with captions."""

    def load(self, options: argparse.Namespace) -> Dataset:
        return folder_dataset(Path(options.images), options.side)
