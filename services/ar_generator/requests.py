"""Parses and checks requests to the generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from hart.v1 import ar_generator_pb2, stage_pb2

from common.limits import SAMPLING_FIELDS, SAMPLING_MAXIMA
from common.seeds import MAX_SEED
from model.params import SamplingParams
from runtime import tensors
from runtime.errors import InvalidRequest, Violation
from runtime.oip.model import InferRequest, Parameter
from services.ar_generator.engine import Array, GenerationRequest

FLOATS = ("FP32", "FP16")


def parse_request(
    request: ar_generator_pb2.GenerateLatentRequest, shape: tuple[int, int], scales: int, defaults: SamplingParams
) -> GenerationRequest:
    """Parse a hart.v1 request. `shape`: (T, D). `defaults`: for absent sampling fields. Raises InvalidRequest, which
    names each invalid field."""
    given = {name: getattr(request, name) for name in SAMPLING_FIELDS if request.HasField(name)}
    _check(given, request.preview_every, scales)
    if request.result_only and request.preview_every:
        raise InvalidRequest.field("result_only", f"must be false if preview_every is {request.preview_every}")
    context = tensors.to_numpy(request.context, "context", dtypes=FLOATS, shape=shape)
    mask = tensors.to_numpy(request.mask, "mask", dtypes=("BOOL",), shape=shape[:1])
    positions = tensors.to_numpy(request.positions, "positions", dtypes=("INT64",), shape=shape[:1])
    _check_conditioning(mask, positions, "{}.data")
    params = replace(defaults, **given)
    return GenerationRequest(context, mask, positions, request.seed, params, request.preview_every, request.result_only)


def parse_infer_request(request: InferRequest, scales: int, defaults: SamplingParams) -> GenerationRequest:
    """Parse an Open Inference Protocol request: inputs with a leading axis of 1, and parameters. Raises
    InvalidRequest."""
    given: dict[str, Any] = {
        name: float(request.parameters[name]) for name in SAMPLING_MAXIMA if name in request.parameters
    }
    if "more_smooth" in request.parameters:
        given["more_smooth"] = bool(request.parameters["more_smooth"])
    preview_every = int(request.parameters.get("preview_every", 0))
    _check(given, preview_every, scales, "parameters[{}]")
    seed = _seed(request.parameters)
    context, mask, positions = (request.inputs[name][0] for name in ("context", "mask", "positions"))
    tensors.require_finite(context, "inputs[context]")
    _check_conditioning(mask, positions, "inputs[{}]")
    return GenerationRequest(context, mask, positions, seed, replace(defaults, **given), preview_every)


def to_proto(params: SamplingParams) -> stage_pb2.SamplingParams:
    """The parameters as a hart.v1 message."""
    return stage_pb2.SamplingParams(**asdict(params))


def _seed(given: Mapping[str, Parameter]) -> int:
    digits = str(given.get("seed", ""))
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20 and int(digits) <= MAX_SEED):
        raise InvalidRequest.field("parameters[seed]", f"must be digits, 0 to {MAX_SEED}, not {digits[:40]!r}")
    return int(digits)


def _check(given: Mapping[Any, Any], preview_every: int, scales: int, name: str = "{}") -> None:
    bounds = [(field, given[field], maximum) for field, maximum in SAMPLING_MAXIMA.items() if field in given]
    found = [
        Violation(name.format(field), f"must be 0 to {maximum:g}, not {value}")
        for field, value, maximum in [*bounds, ("preview_every", preview_every, scales)]
        if not 0 <= value <= maximum  # false for NaN
    ]
    if found:
        raise InvalidRequest(found)


def _check_conditioning(mask: Array, positions: Array, name: str) -> None:
    if not mask.any():
        raise InvalidRequest.field(name.format("mask"), "must mark at least one slot as real")
    if positions.min() < -1 or positions.max() >= len(positions):
        raise InvalidRequest.field(name.format("positions"), f"must be -1 to {len(positions) - 1}")
