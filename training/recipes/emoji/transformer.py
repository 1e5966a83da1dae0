"""Trains the transformer on the recipe's images: `python -m training.recipes.emoji.transformer --styles flat`."""

import sys
from collections.abc import Sequence

from training.core.cli import run_command
from training.recipes.emoji.dataset import EmojiDatasetSource
from training.transformer.command import main as train


def main(arguments: Sequence[str] | None = None) -> None:
    train(EmojiDatasetSource(), arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
