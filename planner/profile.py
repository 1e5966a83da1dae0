"""The profile of a device: what every stage costs on it, as JSON in `planner/profiles`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.stages import STAGES
from planner.costs import BatchCost
from planner.errors import PlanError

FOLDER = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class StageProfile:
    """One stage on the device. Fields of other stages keep their defaults."""

    batch: BatchCost
    """Seconds of a batch. Decoder: of full-size images. Generator: unused, see `scales`."""
    max_batch: int = 8
    queue_limit: int = 64
    call_seconds: tuple[float, ...] = (0.0,)
    """Seconds of one call outside the stage's queue and engine, network included: equally probable values."""
    transfer_bytes: float = 0.0
    """Of one call, request and response, without previews."""
    start_seconds: float = 0.0
    """From the start of the process until it is ready."""
    devices: float = 1.0
    """Devices that one replica occupies: 0.25 is a quarter of one, 0 none."""
    scales: tuple[BatchCost, ...] = ()
    """Generator: per scale."""
    max_batch_per_scale: tuple[int, ...] = ()
    """Generator: per scale."""
    slots: int = 8
    """Generator: images in progress."""
    starvation_seconds: float = 0.1
    """Generator: HART_MAX_STARVATION_SECONDS."""
    encode_seconds: Mapping[str, float] = field(default_factory=dict)
    """Decoder: of one image file, by format."""
    preview_seconds: float = 0.0
    """Decoder: decoding one preview."""
    preview_cost: float = 1 / 16
    """Decoder: of a preview, in units of an image; previews of 1 share batches with images."""
    preview_encode_seconds: float = 0.0
    """Decoder: encoding one preview."""
    encode_threads: int = 2
    """Decoder."""

    def stretched(self, factor: float) -> StageProfile:
        """Every compute time multiplied by `factor`."""
        return replace(
            self,
            batch=self.batch.stretched(factor),
            scales=tuple(one.stretched(factor) for one in self.scales),
            encode_seconds={name: seconds * factor for name, seconds in self.encode_seconds.items()},
            preview_seconds=self.preview_seconds * factor,
            preview_encode_seconds=self.preview_encode_seconds * factor,
            starvation_seconds=self.starvation_seconds * factor,
        )

    def alone(self) -> float:
        """Engine seconds of one request alone."""
        return sum(one.seconds(1) for one in self.scales) if self.scales else self.batch.seconds(1)


@dataclass(frozen=True)
class Profile:
    """All stages on one kind of device."""

    name: str
    source: str
    """How the figures were obtained."""
    device: str
    stages: Mapping[str, StageProfile]
    gateway_seconds: tuple[float, ...] = (0.0,)
    """Seconds of one request in the gateway and between it and its caller: equally probable values."""
    gateway_cpu_seconds: float = 0.0
    """Seconds of a gateway's only thread per request."""
    scale_sides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        missing = [stage for stage in STAGES if stage not in self.stages]
        if missing:
            raise PlanError(f"stages: expected {', '.join(STAGES)}; missing {', '.join(missing)}")
        if not self.stages["ar_generator"].scales:
            raise PlanError("stages.ar_generator.scales: expected one entry per scale, found none")

    def with_stage(self, stage: str, **changes: Any) -> Profile:
        """A profile with changed fields of one stage."""
        return replace(self, stages={**self.stages, stage: replace(self.stages[stage], **changes)})

    def stretched(self, factor: float) -> Profile:
        """Every compute time multiplied by `factor`."""
        return replace(self, stages={name: stage.stretched(factor) for name, stage in self.stages.items()})

    def to_json(self) -> str:
        """The text of the profile's file."""
        head: dict[str, Any] = {
            "name": self.name,
            "source": self.source,
            "device": self.device,
            "gateway_seconds": self.gateway_seconds,
            "gateway_cpu_seconds": self.gateway_cpu_seconds,
            "scale_sides": self.scale_sides,
        }
        return (
            json.dumps(_rounded({**head, "stages": {n: _stage_to(s) for n, s in self.stages.items()}}), indent=2) + "\n"
        )


def load(name: str) -> Profile:
    """The profile of this name in `planner/profiles`, or of this file. Raises PlanError."""
    path = Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"
    try:
        return parse(json.loads(path.read_text()))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.json")))
        raise PlanError(f"profile {name!r}: no such file; there are {known}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f"profile {name!r}: {error!r}") from error


def parse(data: Mapping[str, Any]) -> Profile:
    """A profile from parsed JSON. Raises PlanError, KeyError or TypeError."""
    return Profile(
        name=data["name"],
        source=data["source"],
        device=data["device"],
        stages={name: _stage_of(stage, f"stages.{name}") for name, stage in data["stages"].items()},
        gateway_seconds=tuple(data.get("gateway_seconds", (0.0,))),
        gateway_cpu_seconds=data.get("gateway_cpu_seconds", 0.0),
        scale_sides=tuple(data.get("scale_sides", ())),
    )


def _stage_of(data: Mapping[str, Any], name: str) -> StageProfile:
    fields = dict(data)
    batch = BatchCost.of(fields.pop("batch_seconds"), f"{name}.batch_seconds")
    scales = fields.pop("scale_seconds", [])
    tables = tuple(BatchCost.of(one, f"{name}.scale_seconds[{k}]") for k, one in enumerate(scales))
    for listed in ("call_seconds", "max_batch_per_scale"):
        if listed in fields:
            fields[listed] = tuple(fields[listed])
    found = StageProfile(batch, scales=tables, **fields)
    if len(found.scales) != len(found.max_batch_per_scale):
        raise PlanError(
            f"{name}.max_batch_per_scale: expected {len(found.scales)} entries, not {len(found.max_batch_per_scale)}"
        )
    return found


def _stage_to(stage: StageProfile) -> dict[str, Any]:
    plain = StageProfile(stage.batch)
    given = {
        name: value
        for name, value in vars(stage).items()
        if name not in ("batch", "scales") and (value != getattr(plain, name) or name in ("max_batch", "queue_limit"))
    }
    result: dict[str, Any] = {"batch_seconds": stage.batch.table(), **given}
    if stage.scales:
        result["scale_seconds"] = [one.table() for one in stage.scales]
    return result


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(one) for one in value]
    return value
