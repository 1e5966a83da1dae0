"""The training work that needs a GPU: stages in order, so many minutes a call, resumed by the next call.

`python -m training.gpu` trains the recipe's tokenizer and then its transformer at 256 pixels in all six styles, and
then times the full-size model with random weights (`benchmarks.full_size`). A stage is done when the file that it
writes exists. Images are unpacked from `.cache/data/256/packs` (`python -m training.recipes.emoji.images --side 256
--pack`). `--dry-run` runs both trainings at a toy size on any machine, a few steps each, to check that everything is in
place before a GPU is rented.
"""

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.core.options import RUNS
from training.recipes.emoji.icons import STYLES

SIDE = "256"
IMAGES = Path(".cache/data") / SIDE
SPARE_MINUTES = 1.5  # for starting, measuring and saving around a time limit
MIN_MINUTES = 0.5
REQUIRED = ("torch", "transformers", "safetensors", "numpy", "PIL", "tqdm")
"""Modules that the work imports; it installs nothing."""
NOT_READY = 2


@dataclass(frozen=True)
class Sizes:
    """Options of the two trainings."""

    tokenizer: str
    transformer: str


# A tokenizer of a tenth and a transformer of a fifteenth of the released sizes, within half an hour of a GPU, of which
# each call spends a minute and a half on preparations.
REAL = Sizes(
    "--width 64 --vocabulary 4096 --batch 32 --steps 200000 --minutes 7",
    "--width 512 --depth 12 --batch 128 --steps 200000 --minutes 11 --variants 16 --scenes 12000 "
    "--head-steps 200000 --head-minutes 3",
)
TOY = Sizes(
    "--width 32 --vocabulary 256 --batch 4 --steps 8",
    "--width 64 --depth 2 --batch 4 --steps 8 --variants 2 --scenes 24 --concepts 24 --head-steps 4",
)


@dataclass(frozen=True)
class Stage:
    """One piece of work: the file that it writes at its end, and the command for so many minutes."""

    name: str
    result: Path
    command: Callable[[float], list[str]]


def trainings(styles: list[str], sizes: Sizes, prefix: str) -> list[Stage]:
    """The tokenizer, then the transformer, in runs whose names begin with `prefix`."""
    names = [f"{prefix}-{part}" for part in ("tokenizer", "transformer")]
    common = ["--side", SIDE, "--styles", *styles]
    tokenizer = ["-m", "training.recipes.emoji.tokenizer", "--name", names[0], *common, *sizes.tokenizer.split()]
    transformer = ["-m", "training.recipes.emoji.transformer", "--name", names[1], "--tokenizer", names[0], *common]
    transformer += sizes.transformer.split()
    return [
        Stage(
            "tokenizer",
            RUNS / names[0] / "tokenizer" / "model.safetensors",
            lambda minutes: [*tokenizer, "--time-limit", f"{minutes:.2f}"],
        ),
        Stage(
            "transformer",
            RUNS / names[1] / "llm" / "ema_model.safetensors",
            lambda minutes: [*transformer, "--time-limit", f"{minutes:.2f}"],
        ),
    ]


def timing(prefix: str) -> Stage:
    """The full-size model's, with random weights."""
    file = RUNS / f"{prefix}-full-size.json"
    return Stage("timing", file, lambda _: ["-m", "benchmarks.full_size", "--json", str(file)])


def work(todo: list[Stage], minutes: float, run: Callable[[list[str]], int]) -> list[str]:
    """Runs unfinished stages until the minutes are used; returns the names of those that are left."""
    end = time.monotonic() + 60 * minutes
    for stage in todo:
        if stage.result.exists():
            continue
        limit = (end - time.monotonic()) / 60 - SPARE_MINUTES
        if limit < MIN_MINUTES:
            break
        code = run(stage.command(limit))
        if code:
            raise SystemExit(f"stage {stage.name} ended with code {code}")
        if not stage.result.exists():
            break
    return [stage.name for stage in todo if not stage.result.exists()]


def missing_requirement(on_gpu: bool, styles: list[str]) -> str | None:
    """A sentence about what this machine lacks, None if it lacks nothing."""
    absent = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if absent:
        return f"Not installed here: {', '.join(absent)}. This work needs {', '.join(REQUIRED)} and installs nothing."
    import torch

    if on_gpu and not torch.cuda.is_available():
        return "No CUDA device: this work needs one GPU with 80 GB and a torch built for it."
    if missing := [style for style in styles if not (IMAGES / f"{style}.json").exists()]:
        return (
            f"{IMAGES}: no images of {', '.join(missing)}. Run `python -m training.recipes.emoji.images --side {SIDE} "
            "--pack` and `python -m training.recipes.emoji.text` where npm works, and copy their results here "
            "(docs/training.md)."
        )
    return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.gpu", description="Train on a GPU.")
    parser.add_argument("--minutes", type=float, default=9.5, help="maximum of this call (default: %(default)s)")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES))
    parser.add_argument("--prefix", default="gpu", help="of the names of the runs")
    parser.add_argument("--dry-run", action="store_true", help="both trainings at a toy size, on any machine")
    arguments = parser.parse_args()
    if missing := missing_requirement(not arguments.dry_run, arguments.styles):
        print(missing, file=sys.stderr)
        raise SystemExit(NOT_READY)

    def run(command: list[str]) -> int:
        return subprocess.run([sys.executable, *command], check=False).returncode

    todo = [*trainings(arguments.styles, REAL, arguments.prefix), timing(arguments.prefix)]
    if arguments.dry_run:
        todo = trainings(arguments.styles, TOY, "dry-run")
    left = work(todo, arguments.minutes, run)
    print(f"left: {', '.join(left)}; the same command resumes" if left else "all done")


if __name__ == "__main__":
    main()
