"""What the logs of training runs tell: options, figures, command lines. Knows no networks."""

import json
import shlex
from pathlib import Path
from typing import Any


def lines_of(run: Path) -> list[dict[str, Any]]:
    """All lines of a run's log; none if there is no log."""
    path = run / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def last_figures(run: Path) -> dict[str, Any]:
    """What a run's log says at its end; empty if it never ended."""
    done = [line for line in lines_of(run) if line.get("event") in ("done", "measured")]
    return done[-1] if done else {}


def last_start(run: Path) -> dict[str, Any]:
    """The line with which a run was started the last time; empty if it never was."""
    starts = [line for line in lines_of(run) if line.get("event") == "started"]
    return starts[-1] if starts else {}


def options_of(run: Path) -> list[dict[str, Any]]:
    """The options of each start of a run, without repeats."""
    starts = [line["options"] for line in lines_of(run) if line.get("event") == "started"]
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
            values = value if isinstance(value, list) else [value]
            words.append(shlex.join([flag, *map(str, values)]))
    return " ".join(words)


def chain(run: Path) -> list[Path]:
    """A run and those whose weights it began with, the first one first."""
    links = [run]
    while start := last_start(links[0]).get("options", {}).get("start"):
        beside = run.parent / start
        link = beside if beside.is_dir() else Path(start)  # as --start is read
        if link in links:
            break
        links.insert(0, link)
    return links
