"""Draws images as they grow scale by scale into one animated file, for the project's front page.

`python -m training.recipes.emoji.growing CHECKPOINT PROMPT... -o FILE` draws the prompts side by side with one seed.
Every frame is the decoded latent after one scale, as a preview is; the last frame, the finished images, is held.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from model.generation import GenerationState
from model.pipeline import Pipeline
from model.pixels import Pixels
from training.core.cli import run_command

FRAME_MS, HELD_MS = 450, 2500
"""Milliseconds of a scale's frame and of the last one."""
GAP = 8
"""White pixels between images."""


def frames_of(pipeline: Pipeline, prompt: str, seed: int) -> list[Pixels]:
    """The image (S, S, 3) uint8 after each scale."""
    frames: list[Pixels] = []

    def keep(state: GenerationState) -> None:
        frames.append(pipeline.pixels_of(state.latent))

    pipeline.draw(prompt, seed, on_scale=keep)
    return frames


def row(images: list[Pixels], side: int) -> Image.Image:
    """Images side by side on white, each enlarged to `side` pixels."""
    wide = Image.new("RGB", (len(images) * (side + GAP) - GAP, side), "white")
    for place, image in enumerate(images):
        enlarged = Image.fromarray(np.asarray(image)).resize((side, side), Image.Resampling.BICUBIC)
        wide.paste(enlarged, (place * (side + GAP), 0))
    return wide


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.recipes.emoji.growing", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("prompts", nargs="+", metavar="PROMPT")
    parser.add_argument("-o", "--output", type=Path, default=Path("growing.webp"), help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--side", type=int, default=192, help="pixels of an image in the file (default: %(default)s)")
    options = parser.parse_args()
    pipeline = Pipeline.load(options.checkpoint, safety=False)
    grown = [frames_of(pipeline, prompt, options.seed) for prompt in options.prompts]
    frames = [row(list(images), options.side) for images in zip(*grown, strict=True)]
    durations = [FRAME_MS] * (len(frames) - 1) + [HELD_MS]
    frames[0].save(
        options.output, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=80, method=6
    )
    print(f"{options.output}: {len(frames)} scales, {options.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    sys.exit(run_command(main))
