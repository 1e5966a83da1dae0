"""The GPU work that the project has, one stage after another, so many minutes a call. Knows what is done by its files.

`make gpu` on a machine with a GPU: at 256 pixels and in all six styles the tokenizer, then the transformer, then the
timing of the full-size model with random weights (`benchmarks.full_size`). Every call goes on where the last one
stopped. Pictures are unpacked from `.cache/data/256/packs` (`python -m training.data --side 256 --pack`).
`make gpu-rehearsal` does both trainings at a toy size on a CPU, a few steps each, to see that everything is in place
before a GPU is hired.
"""

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.emoji import STYLES

CACHE = Path(".cache/training")
SIDE = "256"
PICTURES = Path(".cache/data") / SIDE
SPARE_MINUTES = 1.5  # for starting, measuring and saving around a sitting
SMALLEST_SITTING = 0.5
NEEDED = ("torch", "transformers", "safetensors", "numpy", "PIL", "tqdm")
"""Modules of the packages that the work needs; nothing else, and nothing is installed."""
NOT_READY = 2


@dataclass(frozen=True)
class Sizes:
    """Options of the two trainings."""

    tokenizer: str
    transformer: str


# A tokenizer of a tenth, a transformer of a fifteenth of the released ones; both within half an hour's hire, of which
# each call spends a minute and a half on preparations.
REAL = Sizes(
    "--width 64 --vocabulary 4096 --batch 32 --steps 200000 --minutes 7",
    "--width 512 --depth 12 --batch 128 --steps 200000 --minutes 14 --variants 16 --scenes 12000",
)
TOY = Sizes(
    "--width 32 --vocabulary 256 --batch 4 --steps 8",
    "--width 64 --depth 2 --batch 4 --steps 8 --variants 2 --scenes 24 --things 24",
)


@dataclass(frozen=True)
class Stage:
    """One piece of work: what it leaves when it is done, and the command for a sitting of so many minutes."""

    name: str
    leaves: Path
    command: Callable[[float], list[str]]


def trainings(styles: list[str], sizes: Sizes, prefix: str) -> list[Stage]:
    """The tokenizer, then the transformer, in runs whose names begin with `prefix`."""
    names = [f"{prefix}-{part}" for part in ("tokenizer", "transformer")]
    common = ["--side", SIDE, "--styles", *styles]
    tokenizer = ["-m", "training.tokenizer", "--name", names[0], *common, *sizes.tokenizer.split()]
    transformer = ["-m", "training.transformer", "--name", names[1], "--tokenizer", names[0], *common]
    transformer += sizes.transformer.split()
    return [
        Stage(
            "tokenizer",
            CACHE / names[0] / "tokenizer" / "model.safetensors",
            lambda minutes: [*tokenizer, "--sitting", f"{minutes:.2f}"],
        ),
        Stage(
            "transformer",
            CACHE / names[1] / "llm" / "ema_model.safetensors",
            lambda minutes: [*transformer, "--sitting", f"{minutes:.2f}"],
        ),
    ]


def timing(prefix: str) -> Stage:
    """The full-size model's, with random weights."""
    file = CACHE / f"{prefix}-full-size.json"
    return Stage("timing", file, lambda _: ["-m", "benchmarks.full_size", "--json", str(file)])


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


def what_is_lacking(on_gpu: bool, styles: list[str]) -> str | None:
    """A sentence about what this machine has not, None if it has everything."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        return f"Not installed here: {', '.join(absent)}. This work needs {', '.join(NEEDED)} and installs nothing."
    import torch

    if on_gpu and not torch.cuda.is_available():
        return "No CUDA device: this work wants one GPU with 80 GB and torch built for it."
    if missing := [style for style in styles if not (PICTURES / f"{style}.json").exists()]:
        return (
            f"{PICTURES}: no pictures of {', '.join(missing)}. Run `python -m training.data --side {SIDE} --pack` and "
            "`python -m training.text` where there is a registry, and carry what they make here (docs/training.md)."
        )
    return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.gpu", description="The project's work for a GPU.")
    parser.add_argument("--minutes", type=float, default=9.5, help="what this call may take")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES))
    parser.add_argument("--prefix", default="gpu", help="what the names of the runs below .cache/training begin with")
    parser.add_argument("--rehearse", action="store_true", help="both trainings at a toy size, on any machine")
    arguments = parser.parse_args()
    if lacking := what_is_lacking(not arguments.rehearse, arguments.styles):
        print(lacking, file=sys.stderr)
        raise SystemExit(NOT_READY)

    def run(command: list[str]) -> int:
        return subprocess.run([sys.executable, *command], check=False).returncode

    todo = [*trainings(arguments.styles, REAL, arguments.prefix), timing(arguments.prefix)]
    if arguments.rehearse:
        todo = trainings(arguments.styles, TOY, "rehearsal")
    left = work(todo, arguments.minutes, run)
    print(f"still to do: {', '.join(left)}; run it again" if left else "all done")


if __name__ == "__main__":
    main()
