"""Types of options, and folders that options name."""

import argparse
import math
from pathlib import Path

from model.errors import ModelError
from training.core.loop import STATE

RUNS = Path(".cache/training")
"""Where runs keep their state unless --runs names another folder."""
MAX_SEED = 2**32 - 1


class OptionError(ModelError):
    """An option whose value does not exist or does not fit; the message names the option and the value."""


def count(text: str) -> int:
    """A whole number, at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def count_or_zero(text: str) -> int:
    """A whole number, at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 0")
    return value


def positive(text: str) -> float:
    """A finite number over 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: must be a number over 0")
    return value


def seed(text: str) -> int:
    """A seed that numpy and torch both accept, also multiplied by a million."""
    value = int(text)
    if not 0 <= value <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text}: must be from 0 to {MAX_SEED}")
    return value


def add_runs(parser: argparse.ArgumentParser) -> None:
    """--runs."""
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of all runs (default: %(default)s)")


def add_run_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Options that every resumable training has; `name` is the run's default name."""
    parser.add_argument("--name", default=name, help="name of the run: a folder below --runs")
    add_runs(parser)
    parser.add_argument("--init-from", help="initialise from the averaged weights of this run or checkpoint")
    parser.add_argument("--minutes", type=positive, help="maximum minutes of training")
    parser.add_argument("--time-limit", type=positive, help="stop after so many minutes; the same command resumes")
    parser.add_argument("--seed", type=seed, default=0)


def refuse_own_start(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exits with a usage error if a run is to be initialised from itself."""
    if options.init_from is not None and options.init_from == options.name:
        parser.error(f"--init-from: {options.init_from}: is this run (--name), which resumes by itself")


def find_folder(option: str, name: str, runs: Path) -> Path:
    """The folder of a run below `runs`, or else a path. Raises OptionError."""
    for path in (runs / name, Path(name)):
        if path.is_dir():
            return path
    raise OptionError(f"--{option} {name}: no such folder, neither {runs / name} nor {name}")


def find_init(options: argparse.Namespace) -> Path | None:
    """The run or checkpoint to initialise from; None if none is named or the run resumes. Raises OptionError.

    Checked before images are read, which can take hours.
    """
    if options.init_from is None or (options.runs / options.name / STATE).exists():
        return None
    folder = find_folder("init-from", options.init_from, options.runs)
    if not (folder / STATE).exists() and not (folder / "llm" / "config.json").exists():
        raise OptionError(f"--init-from {options.init_from}: {folder / STATE} is missing; this run saved no state")
    return folder


def find_tokenizer(name: str, runs: Path) -> Path:
    """A run or checkpoint with a trained tokenizer in its `tokenizer` folder. Raises OptionError."""
    folder = find_folder("tokenizer", name, runs)
    if not (folder / "tokenizer" / "config.json").exists():
        raise OptionError(
            f"--tokenizer {name}: {folder / 'tokenizer'} is missing: its training has not ended; "
            f"`python -m training.tokenizer --name {name}` with its own options resumes it"
        )
    return folder
