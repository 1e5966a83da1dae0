"""Conversion of image formats and recipes between hart.v1 and `common`."""

from __future__ import annotations

from typing import TypeAlias

from hart.v1 import decoder_pb2

from common.image_formats import DEFAULT_FORMAT, FORMATS, ImageFormat
from common.recipe import Recipe

WireFormat: TypeAlias = "decoder_pb2.ImageFormat.ValueType"
_TO_WIRE = {name: decoder_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{name}") for name in FORMATS}
_FROM_WIRE = {decoder_pb2.IMAGE_FORMAT_UNSPECIFIED: DEFAULT_FORMAT} | {
    value: FORMATS[name] for name, value in _TO_WIRE.items()
}


def to_wire(format: ImageFormat) -> WireFormat:
    """The enum value of a format."""
    return _TO_WIRE[format.name]


def from_wire(value: WireFormat) -> ImageFormat:
    """The format of an enum value. UNSPECIFIED is the default format. Raises ValueError for an unknown value."""
    if value not in _FROM_WIRE:
        raise ValueError(f"unknown value {value}")
    return _FROM_WIRE[value]


def recipe_of(message: decoder_pb2.Recipe) -> Recipe:
    """The recipe of a message, including its versions."""
    return Recipe(
        prompt=message.prompt,
        seed=message.seed,
        guidance=message.guidance,
        more_smooth=message.more_smooth,
        top_p=message.top_p,
        residual_temperature=message.residual_temperature,
        model=message.model.name,
        digest=message.model.digest,
        versions=dict(message.versions),
    )
