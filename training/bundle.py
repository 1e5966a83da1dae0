"""Puts a checkpoint folder together from what the trainings left; knows no training.

`python -m training.bundle checkpoints/NAME --transformer RUN` takes the four parts, lists what the checkpoint knows
(prompts.txt, vocabulary.txt), names the art's authors (ATTRIBUTIONS.md), writes the card (README.md) and refuses a
bundle of more than 36 MB.
The card quotes `training.evaluate` once that has run: make the bundle again then.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from training.corpus import write_prompts, write_vocabulary
from training.data import Thing, load_pictures
from training.ending import run_command
from training.options import CACHE
from training.packages import PACKAGES
from training.parts import copy_parts, size_of
from training.record import chain, command, last_figures, options_of
from training.things import choose

ATTRIBUTIONS = Path(__file__).with_name("ATTRIBUTIONS.md")
LARGEST_BYTES = 36_000_000
CARD = """# {name}: HART, small

A checkpoint of the HART architecture in the released layout, {side} x {side} pixels, that knows {things} things in the
style{plural} {styles} of emoji art. It shows that every part works, from prompt to picture, on any machine. What it
draws beyond the prompts in `prompts.txt` is chance; its safety model stands in for ShieldGemma and is no protection.

## What it was trained on
{sources}
Names and keywords: emojibase-data (MIT). Words were put together from templates (`training/captions.py`).
`ATTRIBUTIONS.md` names the authors. The weights come under the project's own licence (Apache-2.0); where the art's
licence asks for attribution, keep that file beside them.

## How it was made
```
{commands}```
{note}
Tokenizer: {tokenizer_note}
Transformer: {transformer_note}
A run with `--start` begins with the averaged weights of that run, the others from nothing. The tokenizer's loss, the
codebook's revival and the transformer's token corruption are described in `docs/training.md`.

## Measured
`python -m training.evaluate {folder}` at default settings; the judge names the nearest picture of the whole data set.

{figures}
Safety, on prompts kept from training (`python -m training.safety`; recall: unsafe ones that were refused):

{safety}"""


def figures_table(path: Path, safety: Path) -> str:
    """The evaluation's figures as it wrote them, but for those of safety where they have a table of their own."""
    if not path.exists():
        return "Not measured yet.\n"
    rows = path.read_text().splitlines(keepends=True)
    twice = ("| safety.recall_", "| safety.false_") if safety.exists() else ()
    return "".join(row for row in rows if not row.startswith(twice))


def safety_table(path: Path) -> str:
    """The safety figures as a table; says so if there are none."""
    if not path.exists():
        return "Not measured yet.\n"
    figures = json.loads(path.read_text())
    flat = figures | {f"recall_{name}": value for name, value in figures.get("recall_by_policy", {}).items()}
    rows = [f"| {name} | {value} |" for name, value in flat.items() if name.startswith(("recall_", "false_"))]
    return "\n".join(["| figure | value |", "|---|---|", *(row for row in rows if "{" not in row)]) + "\n"


def commands(tokenizer: Path, transformer: Path, folder: Path, side: int) -> str:
    """All command lines, in order; the text encoder reads the names of every style."""
    lines = [f"python -m training.data --side {side}", "python -m training.text"]
    for module, run in (("tokenizer", tokenizer), ("transformer", transformer)):
        lines += [command(module, options) for link in chain(run) for options in options_of(link)[-1:]]
    made = f"python -m training.bundle {folder} --transformer {transformer.name} --tokenizer {tokenizer.name}"
    lines += ["python -m training.safety", made, f"python -m training.evaluate {folder}", f"{made}  # with its figures"]
    return "\n".join(lines) + "\n"


def write_card(folder: Path, run: Path, tokenizer: Path, things: list[Thing], side: int, note: str = "") -> None:
    styles = list(dict.fromkeys(thing.style for thing in things))
    start, end = last_figures(tokenizer), last_figures(run)
    evaluation = CACHE / "evaluation" / folder.name / "figures.md"
    card = CARD.format(
        name=folder.name,
        folder=folder,
        side=side,
        things=len({thing.hexcode for thing in things}),
        plural="s" if len(styles) > 1 else "",
        styles=", ".join(styles),
        sources="".join(f"- {PACKAGES[s].name} {PACKAGES[s].version} ({PACKAGES[s].licence})\n" for s in styles),
        note=note,
        commands=commands(tokenizer, run, folder, side),
        tokenizer_note=f"{start.get('step')} steps, {start.get('continuous')} dB continuous and "
        f"{start.get('discrete')} dB discrete on held-out art.",
        transformer_note=f"{end.get('step')} steps, token accuracy {end.get('token_accuracy')}.",
        figures=figures_table(evaluation, CACHE / "safety.json"),
        safety=safety_table(CACHE / "safety.json"),
    )
    (folder / "README.md").write_text(card)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.bundle", description="Put a checkpoint together.")
    parser.add_argument("folder", type=Path, help="checkpoints/NAME")
    parser.add_argument("--transformer", required=True, help="run below .cache/training")
    parser.add_argument("--tokenizer", default="tokenizer", help="run below .cache/training")
    parser.add_argument("--text", default="text_encoder", help="folder below .cache/training")
    parser.add_argument("--safety", default="safety", help="folder below .cache/training")
    parser.add_argument("--note", default="", help="a sentence for the card, after its commands")
    arguments = parser.parse_args()
    run, tokenizer = CACHE / arguments.transformer, CACHE / arguments.tokenizer
    starts = options_of(run)
    if not starts:
        parser.error(f"--transformer {arguments.transformer}: {run} holds no log of a training")
    options = starts[-1]
    pictures = load_pictures(options["side"], options["styles"])
    things = [pictures.things[i] for i in choose(pictures.things, options["things"])]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sources = {"llm": run / "llm", "tokenizer": tokenizer / "tokenizer"}
    sources |= {"text_encoder": CACHE / arguments.text, "safety": CACHE / arguments.safety}
    copy_parts(arguments.folder, sources)
    write_prompts(things, arguments.folder / "prompts.txt")
    write_vocabulary(things, arguments.folder / "vocabulary.txt")
    shutil.copy(ATTRIBUTIONS, arguments.folder)
    write_card(arguments.folder, run, tokenizer, things, options["side"], arguments.note)
    size = size_of(arguments.folder)
    print(f"{arguments.folder}: {size / 1e6:.1f} MB, {len(things)} things")
    if size > LARGEST_BYTES:
        raise SystemExit(f"{arguments.folder}: {size} bytes, more than the {LARGEST_BYTES} that may be bundled")


if __name__ == "__main__":
    sys.exit(run_command(main))
