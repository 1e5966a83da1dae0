"""What a request to the generator asks for, checked. Knows no queue."""

from __future__ import annotations

from collections.abc import Mapping

from hart.v1 import ar_generator_pb2

from common.limits import MAX_GUIDANCE, MAX_TOP_P
from common.seeds import MAX_SEED
from model.generation import SamplingParams
from runtime import tensors
from runtime.errors import InvalidRequest, Violation
from runtime.oip.model import InferRequest, Parameter
from services.ar_generator.engine import Array, GenerationRequest

FLOATS = ("FP32", "FP16")
DEFAULT = SamplingParams()


def parse_request(
    request: ar_generator_pb2.GenerateLatentRequest, shape: tuple[int, int], scales: int
) -> GenerationRequest:
    """`shape` is (T, D). Raises InvalidRequest naming each bad field."""
    guidance = request.guidance if request.HasField("guidance") else DEFAULT.guidance
    more_smooth = request.more_smooth if request.HasField("smooth") else DEFAULT.more_smooth
    _check(guidance, request.top_p, request.preview_every, scales)
    if request.result_only and request.preview_every:
        raise InvalidRequest.field("quiet", f"must be false where preview_every is {request.preview_every}")
    context = tensors.to_numpy(request.context, "context", dtypes=FLOATS, shape=shape)
    mask = tensors.to_numpy(request.mask, "mask", dtypes=("BOOL",), shape=shape[:1])
    positions = tensors.to_numpy(request.positions, "positions", dtypes=("INT64",), shape=shape[:1])
    _check_conditioning(mask, positions, "{}.data")
    settings = SamplingParams(guidance, more_smooth, request.top_p)
    return GenerationRequest(
        context, mask, positions, request.seed, settings, request.preview_every, request.result_only
    )


def parse_infer_request(request: InferRequest, scales: int) -> GenerationRequest:
    """The same of the Open Inference Protocol's inputs, each with a leading axis of 1, and parameters."""
    given = request.parameters
    guidance = float(given.get("guidance", DEFAULT.guidance))
    top_p = float(given.get("top_p", DEFAULT.top_p))
    preview_every = int(given.get("preview_every", 0))
    _check(guidance, top_p, preview_every, scales, "parameters[{}]")
    seed = _seed(given)
    context, mask, positions = (request.inputs[name][0] for name in ("context", "mask", "positions"))
    tensors.require_finite(context, "inputs[context]")
    _check_conditioning(mask, positions, "inputs[{}]")
    return GenerationRequest(
        context,
        mask,
        positions,
        seed,
        SamplingParams(guidance, bool(given.get("smooth", DEFAULT.more_smooth)), top_p),
        preview_every,
    )


def _seed(given: Mapping[str, Parameter]) -> int:
    digits = str(given.get("seed", ""))
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20 and int(digits) <= MAX_SEED):
        raise InvalidRequest.field("parameters[seed]", f"must be digits, 0 to {MAX_SEED}, not {digits[:40]!r}")
    return int(digits)


def _check(guidance: float, top_p: float, preview_every: int, scales: int, name: str = "{}") -> None:
    bounds = (
        ("guidance", guidance, MAX_GUIDANCE),
        ("top_p", top_p, MAX_TOP_P),
        ("preview_every", preview_every, scales),
    )
    found = [
        Violation(name.format(field), f"must be 0 to {most:g}, not {value}")
        for field, value, most in bounds
        if not 0 <= value <= most  # false for NaN
    ]
    if found:
        raise InvalidRequest(found)


def _check_conditioning(mask: Array, positions: Array, name: str) -> None:
    if not mask.any():
        raise InvalidRequest.field(name.format("mask"), "must mark at least one slot as real")
    if positions.min() < -1 or positions.max() >= len(positions):
        raise InvalidRequest.field(name.format("positions"), f"must be -1 to {len(positions) - 1}")
