"""Exports a bundle: a checkpoint's four parts with its lists of prompts and words, attributions and card.

`python -m training.recipes.emoji.export checkpoints/NAME --transformer RUN` writes prompts.txt, vocabulary.txt,
ATTRIBUTIONS.md and the card (README.md) beside the parts and refuses a bundle of more than 36 MB. `--base CHECKPOINT`
takes the parts that were not trained anew from an existing bundle. The card quotes the evaluation's figures: export
again after `training.recipes.emoji.evaluate`.
"""

import argparse
import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from training.checkpoint.parts import copy_parts, size_of
from training.core.cli import run_command
from training.core.options import OptionError, add_runs
from training.core.run_log import init_chain, last_figures, last_start, start_command
from training.recipes.emoji.concepts import Concept, choose
from training.recipes.emoji.corpus import write_prompts, write_vocabulary
from training.recipes.emoji.dataset import PACKAGE
from training.recipes.emoji.images import load_images
from training.recipes.emoji.packages import PACKAGES

ATTRIBUTIONS = Path(__file__).with_name("ATTRIBUTIONS.md")
MAX_BYTES = 36_000_000
NOT_MEASURED = "Not measured yet.\n"
CARD = """# {name}: HART, small

A checkpoint of the HART architecture in the released layout, {side} x {side} pixels, that knows {concepts} concepts in
the style{plural} {styles} of emoji art. It shows that every part works, from prompt to image, on any machine. Prompts
unlike those in `prompts.txt` give unpredictable images; its safety model stands in for ShieldGemma and is no
protection.

## What it was trained on
{sources}
Names and keywords: emojibase-data (MIT). Captions were generated from templates
(`training/recipes/emoji/captions.py`). `ATTRIBUTIONS.md` names the authors. The weights are under the project's own
licence (Apache-2.0); where the art's licence asks for attribution, keep that file beside them.

## How it was made
```
{commands}```
{note}
{trained}
A run with `--init-from` (formerly `--start`) starts from the averaged weights of that run or checkpoint, the others
from nothing. The tokenizer's loss, the codebook's revival, the transformer's token corruption and the residual head's
own stage are described in `docs/training.md`.

## Measured
`python -m {package}.evaluate {folder}`; the nearest image of the whole data set says what an image shows.

{figures}
Safety, on held-out prompts (`python -m {package}.safety`; recall: share of unsafe ones that were refused):

{safety}"""


@dataclass(frozen=True)
class Sources:
    """Where a bundle comes from."""

    run: Path
    """Of the transformer."""
    tokenizer: Path
    """A run, or the base checkpoint."""
    text: Path
    safety: Path
    base: Path | None
    """The bundle whose other parts are kept."""

    @property
    def parts(self) -> dict[str, Path]:
        return {
            "llm": self.run / "llm",
            "tokenizer": self.tokenizer / "tokenizer",
            "text_encoder": self.text,
            "safety": self.safety,
        }


def figures_table(path: Path, safety: Path) -> str:
    """The evaluation's figures, without those of safety that have a table of their own."""
    if not path.exists():
        return NOT_MEASURED
    rows = path.read_text().splitlines(keepends=True)
    twice = ("| safety.recall_", "| safety.false_") if safety.exists() else ()
    return "".join(row for row in rows if not row.startswith(twice))


def safety_table(path: Path) -> str:
    """The safety figures as a table."""
    if not path.exists():
        return NOT_MEASURED
    figures = json.loads(path.read_text())
    rows = [f"| {name} | {value} |" for name, value in figures.items() if name.startswith(("recall_", "false_"))]
    return "\n".join(["| figure | value |", "|---|---|", *rows]) + "\n"


def commands(sources: Sources, folder: Path, side: int) -> str:
    """All command lines, in order: those of the base's card first."""
    lines = [f"python -m {PACKAGE}.images --side {side}"]
    made = f"python -m {PACKAGE}.export {folder} --transformer {sources.run.name}"
    if sources.base is None:
        lines += [f"python -m {PACKAGE}.text", *_commands_of(sources.tokenizer), *_commands_of(sources.run)]
        lines.append(f"python -m {PACKAGE}.safety")
        made += f" --tokenizer {sources.tokenizer.name}"
    else:
        lines = [*_commands_in(sources.base / "README.md"), *_commands_of(sources.run)]
        made += f" --base {sources.base}"
    lines += [made, f"python -m {PACKAGE}.evaluate {folder}", f"{made}  # with its figures"]
    return "\n".join(lines) + "\n"


def _commands_of(run: Path) -> list[str]:
    return [start_command(start) for link in init_chain(run) if (start := last_start(link))]


def _commands_in(card: Path) -> list[str]:
    """The commands that a card lists. Raises OptionError."""
    found = re.search(r"^```\n(.*?)^```", card.read_text("utf-8") if card.exists() else "", re.MULTILINE | re.DOTALL)
    if not found:
        raise OptionError(f"--base: {card} lists no commands")
    return found[1].splitlines()


def trained_note(sources: Sources) -> str:
    """Sentences about the last figures of the runs."""
    tokenizer, run, head = (last_figures(path) for path in (sources.tokenizer, sources.run, sources.run / "head"))
    notes = []
    if tokenizer:
        notes.append(
            f"Tokenizer: {tokenizer.get('step')} steps, {tokenizer.get('continuous')} dB continuous and "
            f"{tokenizer.get('discrete')} dB discrete on held-out art."
        )
    notes.append(f"Transformer: {run.get('step')} steps, token accuracy {run.get('token_accuracy')}.")
    if head:
        notes.append(
            f"Residual head: {head.get('step')} steps; squared error of a drawn residual over the residuals' variance "
            f"{head.get('error_1')} at temperature 1, {head.get('error_0')} at temperature 0."
        )
    return "\n".join(notes)


def write_card(folder: Path, sources: Sources, concepts: list[Concept], options: argparse.Namespace, side: int) -> None:
    """README.md."""
    styles = list(dict.fromkeys(concept.style for concept in concepts))
    evaluation = options.runs / "evaluation" / folder.name / "figures.md"
    card = CARD.format(
        name=folder.name,
        folder=folder,
        package=PACKAGE,
        side=side,
        concepts=len({concept.hexcode for concept in concepts}),
        plural="s" if len(styles) > 1 else "",
        styles=", ".join(styles),
        sources="".join(f"- {PACKAGES[s].name} {PACKAGES[s].version} ({PACKAGES[s].licence})\n" for s in styles),
        note=options.note,
        commands=commands(sources, folder, side),
        trained=trained_note(sources),
        figures=figures_table(evaluation, options.runs / "safety.json"),
        safety=safety_table(options.runs / "safety.json"),
    )
    (folder / "README.md").write_text(card)


def sources_of(options: argparse.Namespace) -> Sources:
    """What the options name."""
    base: Path | None = options.base
    return Sources(
        options.runs / options.transformer,
        base or options.runs / options.tokenizer,
        base / "text_encoder" if base else options.runs / options.text,
        base / "safety" if base else options.runs / options.safety,
        base,
    )


def parse() -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog=f"python -m {PACKAGE}.export", description="Export a bundle.")
    parser.add_argument("folder", type=Path, help="checkpoints/NAME")
    parser.add_argument("--transformer", required=True, help="run: a folder below --runs")
    parser.add_argument("--tokenizer", default="tokenizer", help="run (default: %(default)s)")
    parser.add_argument("--text", default="text_encoder", help="folder below --runs (default: %(default)s)")
    parser.add_argument("--safety", default="safety", help="folder below --runs (default: %(default)s)")
    parser.add_argument("--base", type=Path, help="a bundle whose tokenizer, text encoder and safety model are kept")
    parser.add_argument("--note", default="", help="a sentence for the card, after its commands")
    add_runs(parser)
    options = parser.parse_args()
    if not last_start(options.runs / options.transformer):
        run = options.runs / options.transformer
        parser.error(f"--transformer {options.transformer}: {run} has no log of a training")
    return options


def main() -> None:
    options = parse()
    sources = sources_of(options)
    known = last_start(sources.run)["options"]
    images = load_images(known["side"], known["styles"])
    concepts = [images.concepts[i] for i in choose(images.concepts, known["concepts"])]
    options.folder.mkdir(parents=True, exist_ok=True)
    copy_parts(options.folder, sources.parts)
    write_prompts(concepts, options.folder / "prompts.txt")
    write_vocabulary(concepts, options.folder / "vocabulary.txt")
    shutil.copy(ATTRIBUTIONS, options.folder)
    write_card(options.folder, sources, concepts, options, known["side"])
    size = size_of(options.folder)
    print(f"{options.folder}: {size / 1e6:.1f} MB, {len(concepts)} images")
    if size > MAX_BYTES:
        raise SystemExit(f"{options.folder}: {size} bytes, over the bundle's maximum of {MAX_BYTES}")


if __name__ == "__main__":
    sys.exit(run_command(main))
