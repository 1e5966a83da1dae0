"""Draws two sheets side by side: the same prompts and seeds, by two checkpoints or two groups of settings.

`python -m training.recipes.emoji.sheets OLD NEW -o FILE` writes 64 images of OLD on the left and of NEW on the right:
48 known prompts of all kinds and 16 phrasings that no training has seen. `--released OLD` draws a side with the
released model's settings, which every checkpoint without a `generation.json` has.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import Checkpoint
from model.params import SamplingParams
from model.pipeline import Pipeline
from training.core.cli import run_command
from training.core.options import OptionError
from training.core.sample_grid import save_sample_grid
from training.data.packages import CACHE
from training.recipes.emoji.evaluate import draw
from training.recipes.emoji.images import load_images, subset
from training.recipes.emoji.probes import known_concepts, paraphrase_probes, training_probes

KNOWN, UNSEEN, COLUMNS = 48, 16, 8


def sheet_prompts(checkpoint: Checkpoint, data: Path) -> list[str]:
    """The prompts of both sheets, of the checkpoint's own concepts. Raises OptionError if it knows none."""
    images = load_images(128, cache=data)
    concepts = known_concepts(images.concepts, checkpoint.known_prompts(), checkpoint.vocabulary().known)
    if not concepts:
        raise OptionError(f"{checkpoint.llm.parent}: prompts.txt names no concept of the data set")
    known = subset(images, concepts).concepts
    probes = [*training_probes(known, KNOWN), *paraphrase_probes(known, UNSEEN)]
    return [probe.prompt for probe in probes]


def side_by_side(
    left: NDArray[np.uint8], right: NDArray[np.uint8], labels: Sequence[str]
) -> tuple[NDArray[np.uint8], list[str]]:
    """Two groups of images (n, S, S, 3) as the rows of one grid of 2 * COLUMNS + 1 columns; the middle one is empty."""
    blank = np.full_like(left[:1], 255)
    rows: list[NDArray[np.uint8]] = []
    names: list[str] = []
    for start in range(0, len(left), COLUMNS):
        row = slice(start, start + COLUMNS)
        rows += [left[row], blank, right[row]]
        names += [*labels[row], "", *labels[row]]
    return np.concatenate(rows), names


def draw_side(folder: Path, prompts: Sequence[str], released: bool, name: str) -> NDArray[np.uint8]:
    """Images (n, S, S, 3) uint8, without a check of safety."""
    pipeline = Pipeline.load(folder, safety=False)
    settings = SamplingParams() if released else pipeline.checkpoint.sampling_defaults
    return draw(pipeline, prompts, settings, name)[0]


def parse() -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m training.recipes.emoji.sheets", description="Draw the same prompts and seeds on two sheets."
    )
    parser.add_argument("old", type=Path, help="checkpoint folder of the left sheet, which names the prompts")
    parser.add_argument("new", type=Path, help="checkpoint folder of the right sheet")
    parser.add_argument(
        "--released", nargs="*", default=[], choices=["old", "new"], help="sides with the released model's settings"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("sheets.png"), help="(default: %(default)s)")
    parser.add_argument("--data", type=Path, default=CACHE, help="folder of built images (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    options = parse()
    prompts = sheet_prompts(Checkpoint.open(options.old), options.data)
    left, right = (
        draw_side(getattr(options, side), prompts, side in options.released, side) for side in ("old", "new")
    )
    if left.shape != right.shape:
        raise OptionError(f"{options.new}: images of {right.shape[1]} pixels, those of {options.old} {left.shape[1]}")
    grid, labels = side_by_side(left, right, prompts)
    save_sample_grid(options.output, grid, columns=2 * COLUMNS + 1, labels=labels)
    print(options.output)


if __name__ == "__main__":
    sys.exit(run_command(main))
