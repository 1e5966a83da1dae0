"""Trains the safety classifier on the recipe's captions and names: `python -m training.recipes.emoji.safety`."""

import argparse
import json
import sys
from pathlib import Path

from training.core.cli import run_command
from training.core.options import RUNS, count, positive
from training.data.packages import CACHE
from training.recipes.emoji.corpus import make_corpus
from training.recipes.emoji.images import load_images
from training.recipes.emoji.packages import fetch
from training.safety.corpus import Prompts
from training.safety.train import SafetyConfig, train_and_measure


def emoji_prompts(seed: int = 0) -> Prompts:
    """Word lists and grammar with the recipe's captions and names."""
    images = load_images()
    captions = make_corpus(images, [], seed, scenes=2000).training
    return Prompts(captions, (concept.name for concept in images.concepts), foreign_names())


def foreign_names() -> list[str]:
    """The names and tags of emoji in all other languages of the package, as they are written."""
    found: set[str] = set()
    for path in sorted(fetch("names", CACHE).glob("*/data.json")):
        if path.parent.name.split("-")[0] != "en":
            for entry in json.loads(path.read_text()):
                found |= {entry["label"], *entry.get("tags", ())}
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.recipes.emoji.safety", description="Train the safety classifier."
    )
    parser.add_argument("--steps", type=count, default=SafetyConfig.steps, help="(default: %(default)s)")
    parser.add_argument("--rate", type=positive, default=SafetyConfig.rate, help="peak rate (default: %(default)s)")
    parser.add_argument("--vocabulary", type=count, default=SafetyConfig.vocabulary, help="entries of the BPE")
    parser.add_argument(
        "--embedding-size", type=positive, default=SafetyConfig.embedding_size, help="of the initial embeddings"
    )
    parser.add_argument("--init-from", type=Path, help="folder of a trained classifier that is trained on")
    parser.add_argument("--out", type=Path, default=RUNS, help="folder of the result and the saved state")
    options = parser.parse_args()
    config = SafetyConfig(
        options.steps,
        options.rate,
        options.vocabulary,
        embedding_size=options.embedding_size,
        init_from=options.init_from,
    )
    print(json.dumps(train_and_measure(emoji_prompts(), config, options.out), indent=1))


if __name__ == "__main__":
    sys.exit(run_command(main))
