"""Parses and checks requests to the decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hart.v1 import decoder_pb2

from common.image_formats import DEFAULT_FORMAT, FORMATS, ImageFormat
from common.limits import DEFAULT_QUALITY, MAX_QUALITY, MAX_RECIPE_BYTES, MIN_QUALITY, is_quality
from common.recipe import Recipe
from model.version import versions
from runtime import image_messages
from runtime.errors import InvalidRequest, Violation
from runtime.oip.model import Parameter


@dataclass(frozen=True)
class OutputOptions:
    """The output options of a decode request."""

    format: ImageFormat | None = DEFAULT_FORMAT
    """None: raw pixels."""
    quality: int = DEFAULT_QUALITY
    side: int | None = None
    """In pixels; None: full size."""
    recipe: str | None = None
    """JSON for the file's metadata."""


def parse_request(request: decoder_pb2.DecodeRequest, max_side: int) -> OutputOptions:
    """Parse a hart.v1 request. Raises InvalidRequest, which names each invalid field."""
    raw = request.WhichOneof("output") == "raw_pixels"
    encoding = request.encoding
    format = image_messages.from_wire(encoding.format)
    quality = encoding.quality if encoding.HasField("quality") else None
    side = request.side if request.HasField("side") else None
    found = [*_quality("encoding.quality", format, quality), *_side("side", side, max_side)]
    if raw and not request.raw_pixels:
        found.append(Violation("raw_pixels", "must be true if it is set, not false"))
    if request.HasField("recipe"):
        if raw:
            found.append(Violation("recipe", "must be absent with raw_pixels: only an image file can hold it"))
        found += _recipe(request.recipe)
    if found:
        raise InvalidRequest(found)
    recipe = recipe_of(request.recipe).to_json() if request.HasField("recipe") else None
    if recipe is not None and len(recipe) > MAX_RECIPE_BYTES:
        raise InvalidRequest.field("recipe", f"takes {len(recipe)} bytes, more than {MAX_RECIPE_BYTES}")
    return OutputOptions(None if raw else format, quality or DEFAULT_QUALITY, side, recipe)


def parse_parameters(parameters: Mapping[str, Parameter], max_side: int) -> OutputOptions:
    """Parse Open Inference Protocol parameters. Without `format` the output is raw pixels. Raises InvalidRequest."""
    given = parameters.get("format")
    format = FORMATS.get(str(given).upper())
    quality, side = parameters.get("quality"), parameters.get("side")
    found = [
        *_quality("parameters[quality]", format, quality),
        *_side("parameters[side]", side, max_side),
    ]
    if given is not None and format is None:
        found.append(Violation("parameters[format]", f"must be one of {', '.join(FORMATS)}, not {str(given)[:40]!r}"))
    if found:
        raise InvalidRequest(found)
    return OutputOptions(format, int(quality or DEFAULT_QUALITY), None if side is None else int(side))


def recipe_of(recipe: decoder_pb2.Recipe) -> Recipe:
    """The recipe to embed. Versions absent from the request are this process's."""
    return replace(image_messages.recipe_of(recipe), versions={**versions(), **recipe.versions})


def _quality(field: str, format: ImageFormat | None, quality: Parameter | None) -> list[Violation]:
    if quality is None:
        return []
    if format is None or not format.has_quality:
        name = format.name if format else "raw pixels"
        return [Violation(field, f"must be absent for {name}, not {quality}: it is lossless")]
    if is_quality(int(quality)):
        return []
    return [Violation(field, f"must be {MIN_QUALITY} to {MAX_QUALITY}, not {quality}")]


def _side(field: str, side: Parameter | None, max_side: int) -> list[Violation]:
    if side is None or 1 <= int(side) <= max_side:
        return []
    return [Violation(field, f"must be 1 to {max_side}, not {side}")]


def _recipe(recipe: decoder_pb2.Recipe) -> list[Violation]:
    numbers = {
        "guidance": recipe.guidance,
        "top_p": recipe.top_p,
        "residual_temperature": recipe.residual_temperature,
    }
    return [
        Violation(f"recipe.{name}", f"must be finite, not {value}")
        for name, value in numbers.items()
        if not math.isfinite(value)
    ]
