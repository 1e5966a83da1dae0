"""The GPU work that the project has, one stage after another, so many minutes a call. Knows what is done by its files.

`make gpu` on a machine with a GPU: at 256 pixels and in all six styles the tokenizer, then the transformer, then the
timing of the full-size model with random weights (`benchmarks.full_size`). Every call goes on where the last one
stopped. Pictures are unpacked from `.cache/data/256/packs` (`python -m training.data --side 256 --pack`).
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from training.emoji import STYLES

CACHE = Path(".cache/training")
TOKENIZER, TRANSFORMER = "gpu-tokenizer", "gpu-transformer"
SPARE_MINUTES = 1.5  # for starting, measuring and saving around a sitting
SMALLEST_SITTING = 0.5
NO_GPU = 2


@dataclass(frozen=True)
class Stage:
    """One piece of work: what it leaves when it is done, and the command for a sitting of so many minutes."""

    name: str
    leaves: Path
    command: Callable[[float], list[str]]


def stages(styles: list[str]) -> list[Stage]:
    """In order. Sizes: a tokenizer of a tenth, a transformer of a fifteenth of the released ones."""
    common = ["--side", "256", "--styles", *styles]
    tokenizer = ["-m", "training.tokenizer", "--name", TOKENIZER, *common]
    tokenizer += ["--width", "64", "--vocabulary", "4096", "--batch", "32", "--steps", "200000", "--minutes", "20"]
    transformer = ["-m", "training.transformer", "--name", TRANSFORMER, "--tokenizer", TOKENIZER, *common]
    transformer += ["--width", "512", "--depth", "12", "--batch", "128", "--steps", "200000", "--minutes", "60"]
    transformer += ["--variants", "16", "--scenes", "12000"]
    timing = CACHE / "full_size.json"
    return [
        Stage(
            "tokenizer",
            CACHE / TOKENIZER / "tokenizer" / "model.safetensors",
            lambda minutes: [*tokenizer, "--sitting", f"{minutes:.2f}"],
        ),
        Stage(
            "transformer",
            CACHE / TRANSFORMER / "llm" / "ema_model.safetensors",
            lambda minutes: [*transformer, "--sitting", f"{minutes:.2f}"],
        ),
        Stage("timing", timing, lambda _: ["-m", "benchmarks.full_size", "--json", str(timing)]),
    ]


def work(todo: list[Stage], minutes: float, run: Callable[[list[str]], int]) -> list[str]:
    """Runs the stages that are not done until the minutes are used; returns the names of those still to do."""
    end = time.monotonic() + 60 * minutes
    for stage in todo:
        if stage.leaves.exists():
            continue
        sitting = (end - time.monotonic()) / 60 - SPARE_MINUTES
        if sitting < SMALLEST_SITTING:
            break
        code = run(stage.command(sitting))
        if code:
            raise SystemExit(f"stage {stage.name} ended with code {code}")
        if not stage.leaves.exists():
            break
    return [stage.name for stage in todo if not stage.leaves.exists()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.gpu", description="The project's work for a GPU.")
    parser.add_argument("--minutes", type=float, default=9.5, help="what this call may take")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("No CUDA device: this work wants one GPU with 24 GB or more and torch built for it.", file=sys.stderr)
        raise SystemExit(NO_GPU)

    def run(command: list[str]) -> int:
        return subprocess.run([sys.executable, *command], check=False).returncode

    left = work(stages(arguments.styles), arguments.minutes, run)
    print(f"still to do: {', '.join(left)}; run it again" if left else "all done")


if __name__ == "__main__":
    main()
