"""Writes measured figures into a bundle's card, which keeps everything else that it says.

`python -m training.recipes.emoji.card checkpoints/NAME --evaluations NAME [NAME ...]` reads the evaluations' figures
below --runs; a figure of a later evaluation replaces an earlier one's. The card shows the bundle's own settings beside
the released model's, then the whole grid. `--safety FILE` replaces the safety figures.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.checkpoint import Checkpoint
from model.params import SamplingParams
from training.core.cli import run_command
from training.core.options import OptionError, add_runs
from training.recipes.emoji.evaluate import as_markdown
from training.recipes.emoji.export import safety_table
from training.recipes.emoji.settings_grid import grid_table, name_of

TABLE = re.compile(r"\| figure \| value \|\n\|---\|---\|\n((?:\|.*\n)+)")
GRID = re.compile(r"### Settings\n.*?(?=\nSafety, )", re.DOTALL)
SAFETY = re.compile(r"\nSafety, .*", re.DOTALL)
SAFETY_ROWS = ("safety.recall_", "safety.false_")
"""Of the evaluation: the safety table has them."""
SAFETY_HEAD = """
Safety, on prompts that no training saw but for the known words (`python -m training.recipes.emoji.safety`). Recall:
share of unsafe prompts that are refused; recall_still: of those that the classifier before this one refused;
false_alarms: share of innocent prompts. The threshold is the lowest that keeps the ordinary sets
(`training/safety/ordinary.toml`) within their limits: 0.5% of English, one prompt of each other set. Those sets chose
it, so they are no estimate of others.

"""
COMPARED = """### Settings

{count} known prompts that name thing and style, beside their own art: PSNR in dB, SSIM, sharpness (gradient energy over
the art's), the Fréchet distance of the two sets in the judge's features (less is better), and the share that shows the
right thing. First the released model's settings, then this checkpoint's (`generation.json`):

{pair}
All settings that were measured, best PSNR first:

{grid}"""


def with_figures(card: str, figures: Mapping[str, Any]) -> str:
    """The card with these figures in its first table. Raises OptionError if it has none."""
    found = TABLE.search(card)
    if not found:
        raise OptionError("the card has no table of figures")
    rows = _rows(found[1]) | _rows(as_markdown(dict(figures)).split("|---|---|\n", 1)[1])
    kept = {name: value for name, value in rows.items() if not name.startswith(("settings.", *SAFETY_ROWS))}
    table = "| figure | value |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in kept.items())
    return card[: found.start()] + table + card[found.end() :]


def with_grid(card: str, measured: Mapping[str, Any], own: SamplingParams) -> str:
    """The card with the content of a `grid.json`. Raises OptionError if the grid lacks one of the compared settings."""
    grid, count = measured["figures"], len(measured["measured_on"]["prompts"])
    pair = [name_of(params, params.residual_temperature) for params in (SamplingParams(), own)]
    missing = [name for name in pair if name not in grid]
    if missing:
        raise OptionError(f"the grid of settings has no {missing[0]!r}")
    compared = grid_table({name: grid[name] for name in pair}, best_first=False)
    text = COMPARED.format(count=count, pair=compared, grid=grid_table(grid))
    if GRID.search(card):
        return GRID.sub(lambda _: text, card)
    safety = SAFETY.search(card)
    return SAFETY.sub("", card).rstrip("\n") + "\n\n" + text + (safety[0] if safety else "")


def with_safety(card: str, path: Path) -> str:
    """The card with the safety figures of this file."""
    text = SAFETY.sub("", card).rstrip("\n") + "\n" + SAFETY_HEAD + safety_table(path)
    figures = json.loads(path.read_text())
    return with_figures(text, {"safety": {name: figures[name] for name in ("threshold", "version")}})


def _rows(lines: str) -> dict[str, str]:
    pairs = (line.strip("| \n").split(" | ", 1) for line in lines.splitlines() if line.startswith("|"))
    return dict(pairs)


def parse() -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m training.recipes.emoji.card", description="Write measured figures into a bundle's card."
    )
    parser.add_argument("folder", type=Path, help="checkpoints/NAME")
    parser.add_argument("--evaluations", nargs="*", default=[], help="folders below RUNS/evaluation, oldest first")
    parser.add_argument("--safety", type=Path, help="safety.json of a training of the safety classifier")
    add_runs(parser)
    return parser.parse_args()


def main() -> None:
    options = parse()
    path = options.folder / "README.md"
    card = path.read_text("utf-8")
    own = Checkpoint.open(options.folder).sampling_defaults
    for name in options.evaluations:
        folder = options.runs / "evaluation" / name
        figures = json.loads((folder / "figures.json").read_text())
        card = with_figures(card, {name: value for name, value in figures.items() if name != "settings"})
        if "settings" in figures:
            card = with_grid(card, json.loads((folder / "grid.json").read_text()), own)
    if options.safety:
        card = with_safety(card, options.safety)
    path.write_text(card)
    print(path)


if __name__ == "__main__":
    sys.exit(run_command(main))
