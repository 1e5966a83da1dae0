"""demo.timeline: the bars of a request's timings."""

from __future__ import annotations

import re

from hart.v1 import images_pb2
from hypothesis import given
from hypothesis import strategies as st

from demo.timeline import COMPUTING, MOVING, WAITING, timeline


def bars(html: str) -> list[tuple[float, float, str]]:
    """Left edge and width in percent, and colour."""
    found = re.findall(r"left:([\d.]+)%;width:([\d.]+)%;background:(#\w+)", html)
    return [(float(left), float(width), colour) for left, width, colour in found]


def test_call_is_drawn_as_transfer_queue_compute_transfer() -> None:
    timings = images_pb2.Timings(wall_seconds=2)
    timings.calls.add(stage="decoder", start_seconds=1, duration_seconds=0.8, queue_seconds=0.2, compute_seconds=0.4)
    timings.calls.add(stage="text_encoder", start_seconds=0, duration_seconds=0.5, compute_seconds=0.5, cached=True)
    html = timeline(timings)
    assert bars(html) == [
        (0, 25, COMPUTING),
        (50, 5, MOVING),
        (55, 10, WAITING),
        (65, 20, COMPUTING),
        (85, 5, MOVING),
    ]
    assert html.index("text encoder (cached)") < html.index("decoder")
    assert "800 ms" in html
    assert "2,000 ms in all" in html


def test_stage_name_is_escaped() -> None:
    timings = images_pb2.Timings(wall_seconds=1)
    timings.calls.add(stage="<script>", duration_seconds=1, preview=True)
    assert "<script>" not in timeline(timings)
    assert "&lt;script&gt; (preview)" in timeline(timings)


@given(numbers=st.tuples(*[st.floats(0, 100)] * 5))
def test_bars_stay_within_their_row(numbers: tuple[float, ...]) -> None:
    wall, start, seconds, queue, compute = numbers
    timings = images_pb2.Timings(wall_seconds=wall)
    timings.calls.add(
        stage="x", start_seconds=start, duration_seconds=seconds, queue_seconds=queue, compute_seconds=compute
    )
    for left, width, _ in bars(timeline(timings)):
        assert 0 <= left <= left + width <= 100.02
