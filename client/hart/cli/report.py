"""A report for people and for machines: JSON, the table of stages, hints; knows no connection."""

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
    """A message as JSON's types: every field by its proto name, enums as words, whole numbers as numbers.

    Protobuf's own JSON writes 64-bit numbers as strings; seeds and byte counts are read by scripts, so not here.
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
        # FORMAT_PNG of enum Format reads "png".
        prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in field.enum_type.name).lstrip("_") + "_"
        return known.name.removeprefix(prefix).lower() if known else value
    return value


def answer_json(prompt: str, answer: GenerateResult, paths: list[str]) -> dict[str, Any]:
    """What `--json` prints for one request, and `hart trace` reads."""
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
        for image, path in zip(answer, paths, strict=True)
    ]
    return {"prompt": prompt, "images": images, **plain(answer.report)}


def seconds(value: float) -> str:
    """A duration with a fitting unit."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.1f} ms"


def print_times(screen: Console, timings: images_pb2.Timings) -> None:
    """Queue, compute and bytes per stage, and the gateway's own; the sums are over all calls of a stage."""
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


def clipped(text: str, most: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def print_hints(screen: Console, report: images_pb2.Report, prompt: str = "") -> None:
    """What the person should know about the answer, and what to do about it; of which prompt, where it is given."""
    whose = f"{shown(repr(clipped(prompt, 80)))}: " if prompt else ""
    for notice in report.warnings:
        screen.print(f"[yellow]note:[/] {whose}{shown(clipped(notice.text, 500))}", soft_wrap=True)
        if notice.code == images_pb2.WARNING_CODE_PROMPT_OUT_OF_VOCABULARY:
            if not all(word in notice.text for word in notice.words):
                words = clipped(", ".join(notice.words), 500)
                screen.print(f"  words this checkpoint was not trained on: {shown(words)}", soft_wrap=True)
            screen.print("  `hart describe` lists prompts that it knows")
