"""What the logs of training runs hold: options, figures, command lines."""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

NOT_QUOTED = ("time_limit", "runs", "data")
"""Options that change nothing about what is trained; command lines leave them out."""


def loggable(options: argparse.Namespace) -> dict[str, Any]:
    """Options as a log holds them: paths as text."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}


def log_lines(run: Path) -> list[dict[str, Any]]:
    """All lines of a run's log; none if there is no log."""
    path = run / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def last_figures(run: Path) -> dict[str, Any]:
    """The last measured figures of a run; empty if there are none."""
    done = [line for line in log_lines(run) if line.get("event") in ("done", "measured")]
    return done[-1] if done else {}


def starts_of(run: Path) -> list[dict[str, Any]]:
    """The log's line of each start, without those whose options repeat an earlier one's."""
    starts = [line for line in log_lines(run) if line.get("event") == "started"]
    options = [line["options"] for line in starts]
    return [line for i, line in enumerate(starts) if line["options"] not in options[:i]]


def last_start(run: Path) -> dict[str, Any]:
    """The log's line of a run's last start; empty if it was never started."""
    starts = [line for line in log_lines(run) if line.get("event") == "started"]
    return starts[-1] if starts else {}


def command_line(module: str, options: dict[str, Any]) -> str:
    """The command line of a module's options as a log holds them."""
    words = [f"python -m {module}"]
    for key, value in options.items():
        flag = "--" + key.replace("_", "-")
        if key in NOT_QUOTED:
            continue
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + key.replace("_", "-"))
        elif value is not None:
            values = value if isinstance(value, list) else [value]
            words.append(shlex.join([flag, *map(str, values)]))
    return " ".join(words)


def start_command(start: dict[str, Any]) -> str:
    """The command line of one start."""
    return command_line(start["module"], start["options"])


def init_chain(run: Path) -> list[Path]:
    """A run and those whose weights it was initialised from, the first one first."""
    links = [run]
    while origin := last_start(links[0]).get("options", {}).get("init_from"):
        beside = run.parent / origin
        link = beside if beside.is_dir() else Path(origin)  # as --init-from is read
        if link in links:
            break
        links.insert(0, link)
    return links
