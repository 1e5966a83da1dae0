"""Prints a report: JSON, the table of stages, hints."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from hart.cli.text import shown
from hart.results import GenerateResult
from hart.v1 import images_pb2


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON types: fields by proto name, enums as lower-case names, integers as numbers.

    Protobuf's own JSON writes 64-bit integers as strings, which is inconvenient for scripts.
    """
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields if _present(message, field)}


def _present(message: Message, field: Any) -> bool:
    return not field.has_presence or message.HasField(field.name)


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {str(key): value[key] for key in sorted(value)}
    if field.is_repeated:
        return [_scalar(item, field) for item in value]
    return _scalar(value, field)


def _scalar(value: Any, field: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        # IMAGE_FORMAT_PNG of enum ImageFormat becomes "png".
        prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in field.enum_type.name).lstrip("_") + "_"
        return known.name.removeprefix(prefix).lower() if known else value
    return value


def result_json(prompt: str, result: GenerateResult, paths: list[str]) -> dict[str, Any]:
    """The output of `--json` for one request, which `hart trace` reads."""
    images = [
        {
            "index": image.index,
            "path": path,
            "format": image.format,
            "width": image.width,
            "height": image.height,
            "seed": image.seed,
            "bytes": len(image.data),
        }
        for image, path in zip(result, paths, strict=True)
    ]
    return {"prompt": prompt, "images": images, **plain(result.report)}


def seconds(value: float) -> str:
    """A duration in s or ms."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.1f} ms"


def print_times(screen: Console, timings: images_pb2.Timings) -> None:
    """Print queue time, compute time and bytes per stage, summed over its calls, and the gateway's time."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("stage", "calls", "queue", "compute", "moved"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    stages: dict[str, list[images_pb2.StageCall]] = defaultdict(list)
    for call in timings.calls:
        stages[call.stage].append(call)
    for stage, calls in stages.items():
        table.add_row(
            shown(stage),
            str(len(calls)),
            seconds(sum(call.queue_seconds for call in calls)),
            seconds(sum(call.compute_seconds for call in calls)),
            f"{sum(call.transfer_bytes for call in calls) / 1024:,.0f} KiB",
        )
    table.add_row("gateway", "", "", seconds(timings.gateway_seconds), "")
    table.add_row("wall", "", "", seconds(timings.wall_seconds), "", style="bold")
    screen.print(table)


def clipped(text: str, max_characters: int) -> str:
    """The text, cut to `max_characters`."""
    return text if len(text) <= max_characters else text[: max_characters - 1] + "…"


def print_hints(screen: Console, report: images_pb2.Report, prompt: str = "") -> None:
    """Print a report's warnings and what to do about them, prefixed by the prompt if given."""
    prefix = f"{shown(repr(clipped(prompt, 80)))}: " if prompt else ""
    for notice in report.warnings:
        screen.print(f"[yellow]note:[/] {prefix}{shown(clipped(notice.text, 500))}", soft_wrap=True)
        if notice.code == images_pb2.WARNING_CODE_PROMPT_OUT_OF_VOCABULARY:
            if not all(word in notice.text for word in notice.words):
                words = clipped(", ".join(notice.words), 500)
                screen.print(f"  words this checkpoint was not trained on: {shown(words)}", soft_wrap=True)
            screen.print("  `hart describe` lists example prompts")
