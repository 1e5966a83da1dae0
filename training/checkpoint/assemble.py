"""Assembles a checkpoint's folder from the parts that trainings wrote.

`python -m training.checkpoint checkpoints/MINE --transformer RUN --safety FOLDER` copies the transformer of a run, the
tokenizer and the text encoder that it was trained with, and a safety model, checks that they belong together, and
writes a short card (README.md) from the runs' logs.
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
from training.checkpoint.parts import copy_parts, size_of
from training.core.options import OptionError, add_runs, find_folder, find_tokenizer
from training.core.run_log import command_line, init_chain, last_figures, last_start, loggable, start_command

WORDS = ("prompts.txt", "vocabulary.txt")
MARK = "Made by `python -m training.checkpoint`."
GUARDED = "The safety model in `safety/` classifies prompts; it was copied unchanged."
UNGUARDED = (
    "There is no safety model. `python -m model --no-safety` generates images of any prompt; the cluster does not "
    "start with this folder. `--safety FOLDER` adds one: ShieldGemma in transformers' format, or the small stand-in of "
    "the bundled checkpoint, which is no protection."
)
CARD = """# {name}: HART, {side} x {side} pixels

A checkpoint of the HART architecture in the released layout: {transformer:.1f} M parameters in the transformer
({diffusion:.1f} M of them its residual diffusion), {tokenizer:.1f} M in the tokenizer. {mark}

{safety}

## What it was trained on
{dataset}
Add their owners and licences here.

## How it was made
```
{commands}```

## Measured
| figure | value |
|---|---|
{figures}
Decibels are on images held out from the tokenizer's training. Token accuracy is on images that the transformer was
trained on, predicted from true tokens; below 0.9 images come out as blobs. A drawn residual's error is its squared
error over the residuals' variance, at temperatures 1 and 0; 1 is the cost of leaving residuals out. Captions that it
was not trained on were not measured.
"""


@dataclasses.dataclass(frozen=True)
class Sources:
    """The runs, and the folders of the parts."""

    transformer: Path
    tokenizer: Path
    parts: Checkpoint
    guarded: bool


def sources_of(options: argparse.Namespace) -> Sources:
    """What the options name, else what the transformer was trained with. Raises OptionError."""
    run = find_folder("transformer", options.transformer, options.runs)
    known: dict[str, Any] = last_start(run).get("options", {})
    if "tokenizer" not in known:
        raise OptionError(f"--transformer {options.transformer}: {run} has no log of a transformer's training")
    if not (run / "llm" / "config.json").exists():
        raise OptionError(
            f"--transformer {options.transformer}: {run / 'llm'} is missing: its training has not ended; "
            "repeat its command to resume it"
        )
    tokenizer = find_tokenizer(options.tokenizer or known["tokenizer"], options.runs)
    text = find_folder("text", options.text or known["text"], options.runs)
    safety = (
        Path(options.folder) / "safety"
        if options.safety is None
        else find_folder("safety", options.safety, options.runs)
    )
    parts = Checkpoint(run / "llm", tokenizer / "tokenizer", text, safety)
    return Sources(run, tokenizer, parts, safety.is_dir())


def require_whole(sources: Sources) -> None:
    """Loads the parts. Raises ModelError if one is broken or they do not belong together."""
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
                "that one, or resume the transformer's training first"
            )
    parts.load_text_encoder(torch.bfloat16)
    if sources.guarded:
        try:
            parts.load_safety(torch.bfloat16)
        except ModelError as error:
            raise OptionError(f"--safety {parts.safety}: {error}") from None


def require_free(folder: Path) -> None:
    """Raises OptionError for a folder with other files than this command's."""
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder}: not a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    card = folder / "README.md"
    if not card.is_file() or MARK not in card.read_text("utf-8", errors="replace"):
        raise OptionError(f"{folder}: holds other files already; choose an empty folder")


def millions(sources: Sources) -> dict[str, float]:
    """Parameters of the transformer, of its residual head and of the tokenizer, in millions."""
    network = sources.parts.load_transformer(torch.bfloat16)
    counted = {"transformer": network, "diffusion": network.diffloss, "tokenizer": sources.parts.load_tokenizer()}
    return {name: sum(tensor.numel() for tensor in part.parameters()) / 1e6 for name, part in counted.items()}


def commands_of(folder: Path, sources: Sources, options: argparse.Namespace) -> str:
    """The command lines of all runs, in order."""
    runs = [link for run in (sources.tokenizer, sources.transformer) for link in init_chain(run)]
    lines = [start_command(start) for run in runs if (start := last_start(run))]
    given = {key: value for key, value in loggable(options).items() if key != "folder"}
    mine = f"training.checkpoint {shlex.quote(str(folder))}"
    lines.append(command_line(mine, given))
    return "".join(f"{line}\n" for line in lines)


def dataset_of(run: Path) -> str:
    """A sentence about the images of a run."""
    start = last_start(run)
    known: dict[str, Any] = start["options"]
    if known.get("images"):
        return f"{start.get('images')} images with captions, from a folder named `{Path(known['images']).name}`."
    return f"{start.get('images')} images of `{start['module'].rpartition('.')[0]}`."


def figures_of(sources: Sources) -> str:
    """Rows of the last figures in the runs' logs."""
    tokenizer, transformer = last_figures(sources.tokenizer), last_figures(sources.transformer)
    head = last_figures(sources.transformer / "head")
    rows = {
        "tokenizer: steps": tokenizer.get("step"),
        "tokenizer: continuous, dB": tokenizer.get("continuous"),
        "tokenizer: discrete, dB": tokenizer.get("discrete"),
        "transformer: steps": transformer.get("step"),
        "transformer: token accuracy": transformer.get("token_accuracy"),
        "drawn residual: error at temperature 1": head.get("error_1"),
        "drawn residual: error at temperature 0": head.get("error_0"),
    }
    return "".join(f"| {name} | {'not measured' if value is None else value} |\n" for name, value in rows.items())


def write_card(folder: Path, sources: Sources, options: argparse.Namespace) -> None:
    """README.md."""
    card = CARD.format(
        name=folder.resolve().name,
        side=sources.parts.tokenizer_config.image_side,
        mark=MARK,
        safety=GUARDED if sources.guarded else UNGUARDED,
        dataset=dataset_of(sources.transformer),
        commands=commands_of(folder, sources, options),
        figures=figures_of(sources),
        **millions(sources),
    )
    (folder / "README.md").write_text(card, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.checkpoint", description="Assemble a checkpoint's folder."
    )
    parser.add_argument("folder", type=Path, help="of the new checkpoint: checkpoints/NAME")
    parser.add_argument("--transformer", required=True, help="run: a folder below --runs")
    parser.add_argument("--tokenizer", help="run or checkpoint (default: what the transformer was trained with)")
    parser.add_argument("--text", help="run or folder of a Qwen2 (default: what the transformer was trained with)")
    parser.add_argument("--safety", help="run or folder of a safety model (default: none, or the folder's own)")
    add_runs(parser)
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
