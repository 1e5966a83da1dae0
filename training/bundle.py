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
from typing import Any

from training.corpus import write_prompts, write_vocabulary
from training.data import Thing, load_pictures
from training.ending import run_command
from training.packages import PACKAGES
from training.things import choose

CACHE = Path(".cache/training")
ATTRIBUTIONS = Path(__file__).with_name("ATTRIBUTIONS.md")
LARGEST_BYTES = 36_000_000
PARTS = {"llm": "transformer", "tokenizer": "tokenizer", "text_encoder": "text encoder", "safety": "safety model"}
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
One CPU core, no GPU. A run with `--start` begins with the averaged weights of that run, the others from nothing. The
tokenizer's loss, the codebook's revival and the transformer's token corruption are described in `docs/training.md`.

## Measured
`python -m training.evaluate {folder}` at default settings; the judge names the nearest picture of the whole data set.

{figures}
Safety, on prompts kept from training (`python -m training.safety`; recall: unsafe ones that were refused):

{safety}"""


def safety_table(path: Path) -> str:
    """The safety figures as a table; says so if there are none."""
    if not path.exists():
        return "Not measured yet.\n"
    figures = json.loads(path.read_text())
    flat = figures | {f"recall_{name}": value for name, value in figures.get("recall_by_policy", {}).items()}
    rows = [f"| {name} | {value} |" for name, value in flat.items() if name.startswith(("recall_", "false_"))]
    return "\n".join(["| figure | value |", "|---|---|", *(row for row in rows if "{" not in row)]) + "\n"


def last_figures(run: Path) -> dict[str, Any]:
    """What a run's log says at its end; empty if it never ended."""
    path = run / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = [line for line in lines if line.get("event") in ("done", "measured")]
    return done[-1] if done else {}


def options_of(run: Path) -> list[dict[str, Any]]:
    """The options of each start of a run, without repeats."""
    path = run / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    starts = [line["options"] for line in lines if line.get("event") == "started"]
    return [options for i, options in enumerate(starts) if options not in starts[:i]]


def command(module: str, options: dict[str, Any]) -> str:
    """The command line of options that a log holds."""
    words = [f"python -m training.{module}"]
    for key, value in options.items():
        flag = "--" + key.replace("_", "-")
        if key == "sitting":
            continue
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + key.replace("_", "-"))
        elif value is not None:
            words.append(f"{flag} {' '.join(map(str, value)) if isinstance(value, list) else value}")
    return " ".join(words)


def commands(tokenizer: Path, transformer: Path, folder: Path, side: int) -> str:
    """All command lines, in order; the text encoder reads the names of every style."""
    lines = [f"python -m training.data --side {side}", "python -m training.text"]
    for module, run in (("tokenizer", tokenizer), ("transformer", transformer)):
        lines += [command(module, options) for link in chain(run) for options in options_of(link)[-1:]]
    made = f"python -m training.bundle {folder} --transformer {transformer.name} --tokenizer {tokenizer.name}"
    lines += ["python -m training.safety", made, f"python -m training.evaluate {folder}", f"{made}  # with its figures"]
    return "\n".join(lines) + "\n"


def chain(run: Path) -> list[Path]:
    """A run and those whose weights it began with, the first one first."""
    options = options_of(run)
    start = options[-1].get("start") if options else None
    return [*(chain(CACHE / start) if start else []), run]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def copy_parts(folder: Path, sources: dict[str, Path]) -> None:
    for part, source in sources.items():
        if not (source / "config.json").exists():
            raise SystemExit(f"{source}: no {PARTS[part]} here (config.json is missing); train it first")
    for part, source in sources.items():
        shutil.rmtree(folder / part, ignore_errors=True)
        shutil.copytree(source, folder / part)
        for path in (folder / part).iterdir():
            path.chmod(0o644)


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
        figures=evaluation.read_text() if evaluation.exists() else "Not measured yet.\n",
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
