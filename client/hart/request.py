"""Keyword arguments to a GenerateRequest; the server knows the limits, this file only the types."""

from __future__ import annotations

import uuid
from numbers import Real
from typing import Any, TypedDict

from hart.errors import InvalidRequest
from hart.results import FORMATS
from hart.v1 import images_pb2


class Options(TypedDict, total=False):
    """A request's options. An absent option (or None) takes the server's default."""

    model: str | None
    """A model's name. Default: the only one."""
    num_images: int | None
    """Number of images, 1 to 8. Default 1."""
    seed: int | None
    """The first image's seed, unsigned 64 bits. Default: random, and returned."""
    guidance: float | None
    """Classifier-free guidance, 0 to 20. Default: the model's."""
    more_smooth: bool | None
    """Soft tokens. Default: the model's."""
    top_p: float | None
    """Nucleus sampling, 0 (off) to 1. Default: the model's."""
    residual_temperature: float | None
    """Scale of the residual diffusion's step noise, 0 to 1. Default: the model's."""
    format: str | None
    """ "png", "jpeg" or "webp". Default "png"."""
    quality: int | None
    """JPEG and WEBP, 1 to 100. Default 92."""
    preview_every: int | None
    """A small preview with every n-th scale; only for streams. Default 0: none."""
    embed_metadata: bool | None
    """Embed the recipe in the files. Default true."""
    request_id: str | None
    """Idempotency key. Default: generated here, so that the channel's own retries are idempotent."""


def build(prompt: str, options: Options) -> images_pb2.GenerateRequest:
    """The request message; InvalidRequest names every option that is unknown or of a wrong type."""
    request = images_pb2.GenerateRequest()
    chosen: dict[str, object] = {"prompt": prompt, **options}
    if chosen.get("request_id") is None:
        chosen["request_id"] = uuid.uuid4().hex
    bad: dict[str, str] = {}
    for name, given in chosen.items():
        value = plain(given)
        if name != "prompt" and name not in Options.__annotations__:
            bad[name] = "there is no such option"
        elif value is not None or name == "prompt":
            _set(request, name, value, bad)
    if bad:
        text = "; ".join(f"{name}: {why}" for name, why in bad.items())
        raise InvalidRequest(text, request_id=str(chosen["request_id"]), fields=bad)
    return request


MAX_TIMEOUT = 1e8
"""Seconds: three years. gRPC overflows beyond some hundreds of them."""


def plain(value: object) -> Any:
    """A library's scalar (numpy's, or an array of no axes) as Python's own number; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def timeout_of(timeout: Any) -> float | None:
    """As Python's own number. InvalidRequest unless it is None or a positive number of seconds, no ages: gRPC would
    take others for "now"."""
    seconds = plain(timeout)
    number = isinstance(seconds, Real) and not isinstance(seconds, bool)
    if seconds is not None and not (number and 0 < seconds <= MAX_TIMEOUT):
        why = f"{timeout!r} is no positive number of seconds up to {MAX_TIMEOUT:.0f}; None leaves it to the server"
        raise InvalidRequest(f"timeout: {why}", fields={"timeout": why})
    return None if seconds is None else float(seconds)


def _set(request: images_pb2.GenerateRequest, name: str, value: object, bad: dict[str, str]) -> None:
    if name == "format":
        if not isinstance(value, str) or value.lower() not in FORMATS:
            bad[name] = f"{value!r} is not one of {', '.join(FORMATS)}"
            return
        value = FORMATS[value.lower()]
    if isinstance(value, bool) and name not in ("more_smooth", "embed_metadata"):
        bad[name] = f"{value!r} is not a number or text"
        return
    try:
        setattr(request, name, value)
    except (TypeError, ValueError) as error:  # A wrong type, a number out of the field's range, a lone surrogate.
        bad[name] = f"{value!r} does not fit: {_reason(request, name, value, error)}"


def _reason(request: images_pb2.GenerateRequest, name: str, value: object, error: Exception) -> str:
    field = request.DESCRIPTOR.fields_by_name[name]
    match field.cpp_type:
        case field.CPPTYPE_UINT64 if isinstance(value, int):
            return f"it must be 0 to {2**64 - 1}"
        case field.CPPTYPE_UINT32 if isinstance(value, int):
            return "it is negative" if value < 0 else "it is too large"  # only the server knows the range
        case field.CPPTYPE_STRING if not isinstance(value, str):
            return "it is no text"
    return str(error)
