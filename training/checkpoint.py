"""Puts the four parts of a checkpoint into one folder, of any training. Knows no pictures.

`python -m training.checkpoint checkpoints/MINE --transformer RUN --safety FOLDER` takes the transformer of a run, the
tokenizer and the text encoder that it was trained with, and a safety model, sees that they belong together, and writes
a short card (README.md) from the runs' logs. `training.bundle` does it for the emoji art that the project ships.
"""

import argparse
import dataclasses
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import Checkpoint, digest_of_folder
from model.config import check_pair
from model.errors import ModelError
from training.ending import run_command
from training.options import OptionError, found, found_tokenizer
from training.parts import copy_parts, size_of
from training.record import chain, command, last_figures, last_start

WORDS = ("prompts.txt", "vocabulary.txt")
MARK = "Made by `python -m training.checkpoint`."
GUARDED = "Prompts are judged by the safety model in `safety/`, which was copied as it was."
UNGUARDED = (
    "There is no safety model. `python -m model --no-safety` draws whatever it is asked for; the cluster, which draws "
    "nothing without a verdict, does not start with this folder. `--safety FOLDER` puts one in: ShieldGemma in "
    "transformers' format, or the small stand-in of the bundled checkpoint, which is no protection."
)
CARD = """# {name}: HART, {side} x {side} pixels

A checkpoint of the HART architecture in the released layout: {transformer:.1f} M parameters in the transformer
({diffusion:.1f} M of them its residual diffusion), {tokenizer:.1f} M in the tokenizer. {mark}

{safety}

## What it was trained on
{material}
Whose they are and under which licence is for the maker of this checkpoint to say here.

## How it was made
```
{commands}```

## Measured
| figure | value |
|---|---|
{figures}
Decibels are on pictures kept from the tokenizer's training. Token accuracy is on pictures that the transformer was
trained on, shown the true tokens; below 0.9 pictures come out as blobs. How well it draws captions that it was not
trained on was not measured.
"""


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where the parts come from: the runs, and the folders of the parts."""

    transformer: Path
    tokenizer: Path
    parts: Checkpoint
    guarded: bool


def sources_of(options: argparse.Namespace) -> Sources:
    """What the options name, and what the transformer was trained with where they do not. Raises OptionError."""
    run = found("transformer", options.transformer)
    known: dict[str, Any] = last_start(run).get("options", {})
    if "tokenizer" not in known:
        raise OptionError(f"--transformer {options.transformer}: {run} holds no log of a transformer's training")
    if not (run / "llm" / "config.json").exists():
        raise OptionError(
            f"--transformer {options.transformer}: {run / 'llm'} is missing: its training has not ended; "
            "the command it was begun with goes on"
        )
    tokenizer = found_tokenizer(options.tokenizer or known["tokenizer"])
    text = found("text", options.text or known["text"])
    safety = Path(options.folder) / "safety" if options.safety is None else found("safety", options.safety)
    parts = Checkpoint(run / "llm", tokenizer / "tokenizer", text, safety)
    return Sources(run, tokenizer, parts, safety.is_dir())


def require_whole(sources: Sources) -> None:
    """Loads what is about to be copied. Raises ModelError if parts are broken or do not belong together."""
    parts = sources.parts
    check_pair(parts.transformer_config, parts.tokenizer_config)
    made_with = last_start(sources.transformer).get("made_with", {})
    for part, option, folder in (
        ("tokenizer", "tokenizer", sources.tokenizer),
        ("text_encoder", "text", parts.text_encoder),
    ):
        if part in made_with and made_with[part] != digest_of_folder(getattr(parts, part)):
            raise OptionError(
                f"--{option} {folder}: is not what {sources.transformer} was trained with, or was changed since; name "
                "that one, or go on with the transformer's training first"
            )
    parts.load_text_encoder(torch.bfloat16)
    if sources.guarded:
        try:
            parts.load_safety(torch.bfloat16)
        except ModelError as error:
            raise OptionError(f"--safety {parts.safety}: {error}") from None


def require_free(folder: Path) -> None:
    """Raises OptionError for a folder that holds anything but what this command made."""
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder}: not a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    card = folder / "README.md"
    if not card.is_file() or MARK not in card.read_text("utf-8", errors="replace"):
        raise OptionError(f"{folder}: holds other things already; choose a folder of its own")


def millions(sources: Sources) -> dict[str, float]:
    """Parameters of the transformer, of the diffusion in it and of the tokenizer, in millions."""
    network = sources.parts.load_transformer(torch.bfloat16)
    counted = {"transformer": network, "diffusion": network.diffloss, "tokenizer": sources.parts.load_tokenizer()}
    return {name: sum(tensor.numel() for tensor in part.parameters()) / 1e6 for name, part in counted.items()}


def commands_of(folder: Path, sources: Sources, options: argparse.Namespace) -> str:
    """The command lines of all runs, in order."""
    lines = []
    for module, run in (("tokenizer", sources.tokenizer), ("transformer", sources.transformer)):
        lines += [command(module, start["options"]) for link in chain(run) if (start := last_start(link))]
    given = {key: value for key, value in vars(options).items() if key != "folder"}
    mine = f"training.checkpoint {shlex.quote(str(folder))}"
    lines.append(command("checkpoint", given).replace("training.checkpoint", mine, 1))
    return "".join(f"{line}\n" for line in lines)


def material_of(run: Path) -> str:
    """A sentence about the pictures of a run."""
    start = last_start(run)
    known: dict[str, Any] = start["options"]
    if known.get("pictures"):
        return f"{start.get('pictures')} pictures with captions, from a folder named `{Path(known['pictures']).name}`."
    return f"{start.get('pictures')} pictures of emoji art ({', '.join(known.get('styles') or [])})."


def figures_of(sources: Sources) -> str:
    """Rows of what the runs' logs say at their ends."""
    tokenizer, transformer = last_figures(sources.tokenizer), last_figures(sources.transformer)
    rows = {
        "tokenizer: steps": tokenizer.get("step"),
        "tokenizer: continuous, dB": tokenizer.get("continuous"),
        "tokenizer: discrete, dB": tokenizer.get("discrete"),
        "transformer: steps": transformer.get("step"),
        "transformer: token accuracy": transformer.get("token_accuracy"),
    }
    return "".join(f"| {name} | {'not known' if value is None else value} |\n" for name, value in rows.items())


def write_card(folder: Path, sources: Sources, options: argparse.Namespace) -> None:
    """README.md."""
    card = CARD.format(
        name=folder.resolve().name,
        side=sources.parts.tokenizer_config.image_side,
        mark=MARK,
        safety=GUARDED if sources.guarded else UNGUARDED,
        material=material_of(sources.transformer),
        commands=commands_of(folder, sources, options),
        figures=figures_of(sources),
        **millions(sources),
    )
    (folder / "README.md").write_text(card, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.checkpoint", description="Put a checkpoint together.")
    parser.add_argument("folder", type=Path, help="of the new checkpoint: checkpoints/NAME")
    parser.add_argument("--transformer", required=True, help="run below .cache/training")
    parser.add_argument("--tokenizer", help="run below .cache/training (default: what the transformer learned with)")
    parser.add_argument("--text", help="run or folder of a Qwen2 (default: what the transformer learned with)")
    parser.add_argument("--safety", help="run or folder of a safety model (default: none, or the one that is there)")
    options = parser.parse_args()
    require_free(options.folder)
    sources = sources_of(options)
    require_whole(sources)
    options.folder.mkdir(parents=True, exist_ok=True)
    write_card(options.folder, sources, options)
    wanted = ["llm", "tokenizer", "text_encoder", *(["safety"] if sources.guarded else [])]
    copy_parts(options.folder, {part: getattr(sources.parts, part) for part in wanted})
    for file in WORDS:
        (options.folder / file).unlink(missing_ok=True)  # of another transformer
        if (sources.transformer / file).exists():
            shutil.copy(sources.transformer / file, options.folder)
    print(f"{options.folder}: {size_of(options.folder) / 1e6:.1f} MB")
    if not sources.guarded:
        print(UNGUARDED, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command(main))
