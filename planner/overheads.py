"""What a request costs outside the engines: measured on an idle cluster, from the timings in its reports."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from common.stages import STAGES
from planner.profile import Profile

QUANTILES = 20
"""Equally probable values that stand for a distribution."""


@dataclass
class Overheads:
    """Seconds outside queue and engine."""

    calls: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    """By stage: of one call as the gateway measured it, without the stage's compute."""
    gateway: list[float] = field(default_factory=list)
    """Of one request, without its calls; the connection between caller and gateway included."""

    decoder_compute: list[float] = field(default_factory=list)
    """Of the decoder on one image, its file included."""

    bytes: dict[str, int] = field(default_factory=dict)
    """By stage: of the last call, request and response."""

    def add(self, calls: Iterable[Any], wall_seconds: float) -> None:
        """Add a request for one image without previews, sent to an idle cluster. `calls`: of its report."""
        found = {call.stage: call for call in calls}
        for stage, call in found.items():
            self.bytes[stage] = call.transfer_bytes
            self.calls[stage].append(max(0.0, call.duration_seconds - call.compute_seconds))
        if "decoder" in found:
            self.decoder_compute.append(found["decoder"].compute_seconds)
        prompt = [found[stage].duration_seconds for stage in ("safety", "text_encoder") if stage in found]
        images = sum(found[stage].duration_seconds for stage in ("ar_generator", "decoder") if stage in found)
        self.gateway.append(max(0.0, wall_seconds - max(prompt, default=0.0) - images))

    def applied(self, profile: Profile) -> Profile:
        """The profile with these overheads."""
        stages = {
            name: replace(
                stage,
                call_seconds=quantiles(self.calls[name]) or stage.call_seconds,
                transfer_bytes=self.bytes.get(name, stage.transfer_bytes),
            )
            for name, stage in profile.stages.items()
        }
        return replace(profile, stages=stages, gateway_seconds=quantiles(self.gateway) or profile.gateway_seconds)


def quantiles(values: Sequence[float], count: int = QUANTILES) -> tuple[float, ...]:
    """At most `count` equally probable values that stand for these; () of none."""
    ordered = sorted(values)
    if len(ordered) <= count:
        return tuple(ordered)
    return tuple(ordered[int((k + 0.5) * len(ordered) / count)] for k in range(count))


def measure(endpoint: str, requests: int, options: Mapping[str, Any] | None = None) -> Overheads:
    """Send so many requests one after another, each with a prompt of its own. Raises hart.HartError."""
    import hart  # here, so that a simulation needs no gRPC

    found = Overheads()
    with hart.Client(endpoint, **(options or {})) as client:
        client.generate("a red heart", timeout=60)  # opens the connections
        for number in range(requests):
            begun = time.monotonic()
            result = client.generate(f"a red heart, number {number} of {time.time_ns()}", timeout=60)
            found.add(result.report.timings.calls, time.monotonic() - begun)
    return found
