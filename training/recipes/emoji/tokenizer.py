"""Trains the tokenizer on the recipe's images: `python -m training.recipes.emoji.tokenizer --styles flat`."""

import sys
from collections.abc import Sequence

from training.core.cli import run_command
from training.recipes.emoji.dataset import EmojiImageSource
from training.tokenizer.train import main as train


def main(arguments: Sequence[str] | None = None) -> None:
    train(EmojiImageSource(), arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
