"""A profile from a running cluster: what its stages describe, and what its requests take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from common.stages import STAGES
from planner.costs import BatchCost
from planner.errors import PlanError
from planner.overheads import Overheads
from planner.profile import Profile, StageProfile

if TYPE_CHECKING:
    from hart.v1.stage_pb2 import StageDescribeResponse

PREVIEW_AREA = 1 / 16
"""Of a preview in units of an image: a quarter of its side."""
MIN_PREVIEW_SIDE = 128
"""Pixels (`gateway/request/pipeline.py`)."""


def profile_of(name: str, source: str, described: Mapping[str, StageDescribeResponse], overheads: Overheads) -> Profile:
    """The profile of a cluster. `described`: one answer of `Stage.Describe` per stage. Raises PlanError for a stage
    that has not measured its cost."""
    missing = [stage for stage in STAGES if stage not in described]
    if missing:
        raise PlanError(f"--stage {', '.join(missing)}: expected its address")
    generator = described["ar_generator"]
    stages = {stage: _stage(stage, described[stage], overheads.decoder_compute) for stage in STAGES}
    profile = Profile(
        name, source, f"{generator.device} {generator.precision}".strip(), stages,
        scale_sides=tuple(scale.side for scale in generator.cost.scales),
    )  # fmt: skip
    return overheads.applied(profile)


def _stage(stage: str, answer: StageDescribeResponse, computed: Sequence[float]) -> StageProfile:
    cost, limits = answer.cost, answer.limits
    table = dict(cost.batch_seconds) or {1: cost.request_seconds}
    found: dict[str, Any] = {
        "max_batch": limits.max_batch,
        "queue_limit": limits.queue_limit,
        "start_seconds": cost.start_seconds,
    }
    if stage == "ar_generator":
        tables = [BatchCost.of(dict(one.batch_seconds), f"scales[{k}]") for k, one in enumerate(cost.scales)]
        found |= {
            "scales": tuple(tables),
            "max_batch_per_scale": tuple(max(1, one.max_batch) for one in cost.scales),
            "slots": limits.concurrency,
        }
    if stage == "decoder":
        found |= _decoder(answer, BatchCost.of(table, "decoder.batch_seconds").seconds(1), computed)
    return StageProfile(BatchCost.of(table, f"{stage}.batch_seconds"), **found)


def _decoder(answer: StageDescribeResponse, image_seconds: float, computed: Sequence[float]) -> dict[str, Any]:
    """`computed`: seconds of decoding and encoding PNG files, for stages that describe no times of their encoder."""
    encode = {name: float(seconds) for name, seconds in answer.cost.encode_seconds.items()}
    if not encode and computed:
        encode["png"] = max(0.0, sorted(computed)[len(computed) // 2] - image_seconds)
    area = min(1.0, max(PREVIEW_AREA, (MIN_PREVIEW_SIDE / max(1, answer.shape.width)) ** 2))
    encoding = encode.get("jpeg", 0.0) * area
    whole = answer.cost.preview_seconds
    decoding = max(0.0, whole - encoding) if whole else image_seconds * area
    return {
        "encode_seconds": encode,
        "preview_seconds": decoding,
        "preview_cost": area,
        "preview_encode_seconds": encoding,
    }


def describe(addresses: Mapping[str, str], timeout: float = 10.0) -> dict[str, StageDescribeResponse]:
    """Ask each stage, by its address (plaintext). Raises PlanError."""
    import grpc  # here, so that a simulation needs no gRPC
    from hart.v1 import stage_pb2, stage_pb2_grpc

    found = {}
    for stage, address in addresses.items():
        with grpc.insecure_channel(address) as channel:
            try:
                request = stage_pb2.StageDescribeRequest()
                answer = stage_pb2_grpc.StageStub(channel).Describe(request, timeout=timeout)
            except grpc.RpcError as error:
                raise PlanError(f"--stage {stage}={address}: {error}") from error
        if answer.stage != stage:
            raise PlanError(f"--stage {stage}={address}: {answer.stage or 'another service'} answers there")
        found[stage] = answer
    return found


def with_cpu(profile: Profile, seconds: float) -> Profile:
    """The profile with this CPU time of a gateway per request, taken out of the time measured around it."""
    around = tuple(max(0.0, one - seconds) for one in profile.gateway_seconds)
    return replace(profile, gateway_cpu_seconds=seconds, gateway_seconds=around)
