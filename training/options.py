"""Values and folders that the options of training's commands name. Knows no command."""

import argparse
import math
from pathlib import Path

from model.errors import ModelError
from training.loop import STATE

CACHE = Path(".cache/training")
MAX_SEED = 2**32 - 1


class OptionError(ModelError):
    """An option names what is not there, or what does not fit; the message names both."""


def count(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def positive(text: str) -> float:
    """A finite number over 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: must be a number over 0")
    return value


def seed(text: str) -> int:
    """What numpy and torch both take, also where it is multiplied by a million."""
    value = int(text)
    if not 0 <= value <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text}: must be from 0 to {MAX_SEED}")
    return value


def refuse_beside_pictures(parser: argparse.ArgumentParser, options: argparse.Namespace, names: list[str]) -> None:
    """Ends the command if one of the options that choose emoji art is given besides --pictures."""
    for name in names:
        if options.pictures is not None and getattr(options, name) is not None:
            parser.error(f"--{name}: chooses emoji art, and --pictures {options.pictures} takes its place; give one")


def refuse_own_start(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the command if a run shall begin with itself."""
    if options.start is not None and options.start == options.name:
        parser.error(f"--start: {options.start}: is this very run (--name), which goes on by itself")


def found(option: str, name: str) -> Path:
    """The folder of a run: below .cache/training, or else a path. Raises OptionError."""
    for path in (CACHE / name, Path(name)):
        if path.is_dir():
            return path
    raise OptionError(f"--{option} {name}: no such folder, neither {CACHE / name} nor {name}")


def found_start(options: argparse.Namespace) -> Path | None:
    """The run whose weights to begin with; None if there is none or the run goes on by itself. Raises OptionError.

    Asked before pictures are read, which can take hours.
    """
    if options.start is None or (CACHE / options.name / STATE).exists():
        return None
    folder = found("start", options.start)
    if not (folder / STATE).exists():
        raise OptionError(f"--start {options.start}: {folder / STATE} is missing; nothing of this run was saved")
    return folder


def found_tokenizer(name: str) -> Path:
    """A folder with a trained tokenizer in its `tokenizer`: a run's, or a checkpoint. Raises OptionError."""
    folder = found("tokenizer", name)
    if not (folder / "tokenizer" / "config.json").exists():
        raise OptionError(
            f"--tokenizer {name}: {folder / 'tokenizer'} is missing: its training has not ended; "
            f"`python -m training.tokenizer --name {name}` with its own options goes on"
        )
    return folder
