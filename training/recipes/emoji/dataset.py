"""The recipe's sources for the generic trainers: images by style, captions, composed scenes."""

import argparse
from pathlib import Path

import numpy as np

from training.core.images import sample_size
from training.core.options import count, count_or_zero
from training.data.dataset import Dataset, spread
from training.data.image_set import ImageSet
from training.data.packages import CACHE
from training.recipes.emoji.captions import captions_of
from training.recipes.emoji.concepts import choose
from training.recipes.emoji.icons import STYLES
from training.recipes.emoji.images import EmojiImages, load_images, subset
from training.recipes.emoji.scenes import scenery

PACKAGE = "training.recipes.emoji"
GRID_SINGLES, GRID_SCENES = 24, 8


def emoji_dataset(images: EmojiImages, concepts: int | None, variants: int, scenes: int, seed: int) -> Dataset:
    """The best-known concepts of the images, each image with `variants` captions, and composed scenes."""
    side = images.pixels.shape[1]
    images = subset(images, [images.concepts[i] for i in choose(images.concepts, concepts)])
    composed, scene_captions = scenery(images, scenes, seed)
    captions = captions_of(images.concepts, variants, seed)
    singles = GRID_SINGLES if scenes else GRID_SINGLES + GRID_SCENES
    shown = [captions[i][-1] for i in spread(len(captions), sample_size(singles, side))]
    captions += [[caption] for caption in scene_captions]
    pixels = np.concatenate([images.pixels, composed]) if scenes else images.pixels
    return Dataset(pixels, captions, scenes, shown + scene_captions[:GRID_SCENES])


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=CACHE, help="folder of built images (default: %(default)s)")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=["flat"], help="(default: flat)")


class EmojiImageSource:
    """Of the tokenizer's training."""

    package, distinct = PACKAGE, False

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        _add_images(parser)

    def check_options(self, parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
        pass

    def load(self, options: argparse.Namespace) -> ImageSet:
        return load_images(options.side, options.styles, options.data)


class EmojiDatasetSource:
    """Of the transformer's training."""

    package = PACKAGE

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        _add_images(parser)
        parser.add_argument("--concepts", type=count, help="only so many, well-known ones first")
        parser.add_argument("--variants", type=count, default=12, help="captions of each image (default: %(default)s)")
        parser.add_argument("--scenes", type=count_or_zero, default=0, help="composed scenes (default: %(default)s)")

    def check_options(self, parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
        pass

    def load(self, options: argparse.Namespace) -> Dataset:
        images = load_images(options.side, options.styles, options.data)
        return emoji_dataset(images, options.concepts, options.variants, options.scenes, options.seed)
