"""`hart trace`: a waterfall chart of the output of `hart generate --json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hart.cli.connection import UsageError, console, exit_codes
from hart.cli.text import shown

_QUEUE, _COMPUTE, _WIRE = "░", "█", "·"
_ASCII = str.maketrans({_QUEUE: "-", _COMPUTE: "#", _WIRE: "."})


def trace(
    file: Annotated[Path, typer.Argument(help="Output of `hart generate --json`; - for standard input.")],
    scales: Annotated[bool, typer.Option(help="Also show a row per scale.")] = True,
) -> None:
    """Show a request's time per stage call: ░ in the queue, █ computing, · on the network."""
    with exit_codes():
        for answer in _answers(file):
            try:
                print_waterfall(console(stderr=False), answer, scales)
            except (KeyError, TypeError, AttributeError) as error:
                raise UsageError(f"{file}: not the output of `hart generate --json`: {error!r}") from None


def _answers(file: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads((sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")).removeprefix("\ufeff"))
    except ValueError as error:
        raise UsageError(f"{file}: not JSON: {error}") from None
    answers = data.get("answers", [data]) if isinstance(data, dict) else []
    if not answers or not all(isinstance(answer, dict) and "timings" in answer for answer in answers):
        raise UsageError(f"{file}: not the output of `hart generate --json`: no timings")
    return answers


def print_waterfall(screen: Console, answer: dict[str, Any], scales: bool = True) -> None:
    """Print one request; durations in milliseconds."""
    timings = answer["timings"]
    wall = max(float(timings["wall_seconds"]), 1e-9)
    width = max(20, min(80, screen.width - 48))
    rows = list(_rows(timings["calls"], wall, width, scales))
    screen.print(
        f"[bold]{shown(answer.get('request_id', ''))}[/]  trace {shown(answer.get('trace_id') or '-')}  "
        f"wall {wall * 1000:.1f} ms, of it the gateway {timings['gateway_seconds'] * 1000:.1f} ms",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("call", "queue", "compute", "all"):
        table.add_column(heading, justify="left" if heading == "call" else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_row(*(_drawable(cell, screen) for cell in row))
    screen.print(table)


def _drawable(cell: str | Text, screen: Console) -> str | Text:
    """The bars in characters of the screen's encoding."""
    if isinstance(cell, str) or screen.encoding.startswith("utf"):
        return cell
    return Text(cell.plain.translate(_ASCII), style=cell.style)


def _rows(calls: list[dict[str, Any]], wall: float, width: int, scales: bool) -> Iterator[tuple[str | Text, ...]]:
    for call in sorted(calls, key=lambda one: float(one["start_seconds"])):
        start, length = call["start_seconds"], call["duration_seconds"]
        wire = max(0.0, length - call["queue_seconds"] - call["compute_seconds"])
        parts = [(_WIRE, wire / 2), (_QUEUE, call["queue_seconds"]), (_COMPUTE, call["compute_seconds"])]
        style = "green" if call.get("critical") else "cyan"
        yield (
            _label(call),
            f"{call['queue_seconds'] * 1000:.1f}",
            f"{call['compute_seconds'] * 1000:.1f}",
            f"{length * 1000:.1f}",
            Text(_bar(start, [*parts, (_WIRE, wire / 2)], wall, width), style=style),
        )
        for scale in call.get("scales", ()) if scales else ():
            begin = start + scale["start_seconds"]
            yield (
                f"  {scale['side']}x{scale['side']}",
                "",
                f"{scale['duration_seconds'] * 1000:.1f}",
                "",
                Text(_bar(begin, [(_COMPUTE, scale["duration_seconds"])], wall, width), style="dim"),
            )


def _label(call: dict[str, Any]) -> str:
    label = shown(str(call["stage"]))
    if call.get("image") is not None:
        label += f" #{call['image']}"
    if call.get("preview"):
        label += " preview"
    return label + (" (cache)" if call.get("cached") else "")


def _bar(start: float, parts: list[tuple[str, float]], wall: float, width: int) -> str:
    """Consecutive segments on a line of `width` cells for `wall` seconds; one cell or more."""
    line = [" "] * width
    begin = start
    for sign, length in parts:
        first, last = (round(moment / wall * width) for moment in (begin, begin + length))
        for cell in range(max(0, first), min(width, last)):
            line[cell] = sign
        begin += length
    if not "".join(line).strip():
        line[min(width - 1, max(0, int(start / wall * width)))] = max(parts, key=lambda part: part[1])[0]
    return "".join(line)
