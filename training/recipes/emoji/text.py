"""Distils the text encoder on the recipe's captions: `python -m training.recipes.emoji.text`."""

import argparse
import json
import sys
from pathlib import Path

from training.core.cli import run_command
from training.core.options import RUNS, count
from training.recipes.emoji.corpus import make_corpus
from training.recipes.emoji.images import load_images
from training.text import teacher
from training.text.evaluate import measure
from training.text.train import CONTEXT_TOKENS, TextConfig, export, train


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.recipes.emoji.text", description="Distil the text encoder."
    )
    parser.add_argument("--steps", type=count, default=TextConfig.steps, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RUNS, help="folder of the result and the saved state")
    parser.add_argument("--vocabulary", type=count, default=TextConfig.vocabulary, help="entries of the BPE")
    options = parser.parse_args()
    config = TextConfig(steps=options.steps, vocabulary=options.vocabulary)
    corpus = make_corpus(load_images(), teacher.dictionary())
    student, tokenizer = train(config, corpus, options.out)
    folder = options.out / "text_encoder"
    export(student, tokenizer, corpus.system_prompt, folder)
    figures = measure(folder, CONTEXT_TOKENS, corpus)
    (options.out / "text_quality.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    sys.exit(run_command(main))
