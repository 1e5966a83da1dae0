"""A request's timings as bars in HTML."""

from __future__ import annotations

from html import escape

from hart.v1 import images_pb2

WAITING, COMPUTING, MOVING = "#f0b429", "#2f9e6e", "#a7b0ba"
STYLE = """
.timeline { display: grid; grid-template-columns: max-content 1fr max-content; gap: 2px 10px; align-items: center; }
.timeline .way { position: relative; height: 12px; }
.timeline .way span { position: absolute; top: 0; bottom: 0; min-width: 1px; }
"""


def timeline(timings: images_pb2.Timings) -> str:
    """One row per stage call: queue time, compute time, and network time, split evenly before and after."""
    wall = max(timings.wall_seconds, 1e-9)
    rows = "".join(_row(call, wall) for call in sorted(timings.calls, key=lambda call: call.start_seconds))
    legend = "".join(
        f'<span style="color:{colour}">■</span> {name}&ensp;'
        for colour, name in ((WAITING, "waiting"), (COMPUTING, "computing"), (MOVING, "on the network"))
    )
    return f'<div class="timeline">{rows}</div><p>{_milliseconds(timings.wall_seconds)} total&ensp;{legend}</p>'


def _row(call: images_pb2.StageCall, wall: float) -> str:
    wire = max(0.0, call.duration_seconds - call.queue_seconds - call.compute_seconds)
    begin, bars = call.start_seconds, ""
    for colour, length in (
        (MOVING, wire / 2),
        (WAITING, call.queue_seconds),
        (COMPUTING, call.compute_seconds),
        (MOVING, wire / 2),
    ):
        if length > 0:
            left, width = (100 * min(1.0, max(0.0, part / wall)) for part in (begin, length))
            width = min(width, 100 - left)
            bars += f'<span style="left:{left:.2f}%;width:{width:.2f}%;background:{colour}"></span>'
        begin += length
    return f'<div>{_label(call)}</div><div class="way">{bars}</div><div>{_milliseconds(call.duration_seconds)}</div>'


def _label(call: images_pb2.StageCall) -> str:
    label = escape(call.stage.replace("_", " "))
    if call.preview:
        label += " (preview)"
    return label + (" (cached)" if call.cached else "")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"
