"""Checks a GenerateRequest field by field and converts it to an ImageRequest. It calls no stage.

runtime.server.messages refuses bytes that do not parse, unknown fields and unknown enum values before.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hart.v1 import decoder_pb2, images_pb2

from common import image_formats, limits, seeds
from common.prompt import checked_prompt, trimmed
from runtime.errors import InvalidRequest, Violation
from runtime.image_messages import from_wire, to_wire

DEFAULTS = images_pb2.Defaults(
    num_images=limits.DEFAULT_IMAGES,
    format=to_wire(image_formats.DEFAULT_FORMAT),
    quality=limits.DEFAULT_QUALITY,
    embed_metadata=True,
)


@dataclass(frozen=True)
class ImageRequest:
    """What to draw, with every default filled in."""

    request_id: str
    """As given or generated."""
    prompt: str
    """Trimmed."""
    seeds: tuple[int, ...]
    """One per image."""
    sampling: Mapping[str, Any]
    """The sampling fields that the caller set, by name. The generator fills in its checkpoint's defaults."""
    encoding: decoder_pb2.ImageEncoding
    """Format and quality of the files."""
    preview_every: int
    embed_metadata: bool
    result_only: bool = field(default=False, compare=False)
    """True for unary calls: no progress events are sent. A stream that joins this execution gets all progress at the
    end."""

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.seeds)


@dataclass(frozen=True)
class ModelLimits:
    """The served model's bounds on a request, from the stages' descriptions."""

    name: str
    scales: int
    """Scales per image."""


def validate(message: images_pb2.GenerateRequest, model: ModelLimits | None, *, streams: bool) -> ImageRequest:
    """The request with its defaults. Raises InvalidRequest naming every bad field with its value.

    `model`: None before the first description of a generator: fields that depend on it are then not checked.
    `streams`: True
    for GenerateStream, the only call that can send previews.
    """
    found = [*_drawing(message), *_file(message), *_calling(message, model, streams)]
    if found:
        raise InvalidRequest(found)
    request_id = message.request_id if message.HasField("request_id") else uuid.uuid4().hex
    count = message.num_images if message.HasField("num_images") else DEFAULTS.num_images
    seed = _seed(message)
    return ImageRequest(
        request_id=request_id,
        prompt=trimmed(message.prompt),
        seeds=tuple(seeds.seed_of_image(seed, index) for index in range(count)),
        sampling={name: getattr(message, name) for name in limits.SAMPLING_FIELDS if message.HasField(name)},
        encoding=_encoding(message),
        preview_every=message.preview_every,
        embed_metadata=message.embed_metadata if message.HasField("embed_metadata") else DEFAULTS.embed_metadata,
        result_only=not streams,
    )


def _seed(message: images_pb2.GenerateRequest) -> int:
    if message.HasField("seed"):
        return message.seed
    return seeds.seed_of_request_id(message.request_id) if message.HasField("request_id") else seeds.draw_seed()


def _encoding(message: images_pb2.GenerateRequest) -> decoder_pb2.ImageEncoding:
    encoding = decoder_pb2.ImageEncoding(format=message.format or DEFAULTS.format)
    if from_wire(encoding.format).has_quality:
        encoding.quality = message.quality if message.HasField("quality") else DEFAULTS.quality
    return encoding


def _drawing(message: images_pb2.GenerateRequest) -> Iterator[Violation]:
    try:
        checked_prompt(message.prompt)
    except ValueError as error:
        yield Violation("prompt", str(error))
    if message.HasField("num_images") and not 1 <= message.num_images <= limits.MAX_IMAGES:
        yield Violation("num_images", f"must be 1 to {limits.MAX_IMAGES}, not {message.num_images}")
    for name, maximum in limits.SAMPLING_MAXIMA.items():
        if not _within(value := getattr(message, name), maximum):
            yield Violation(name, f"must be 0 to {maximum:g}, not {value:g}")


def _file(message: images_pb2.GenerateRequest) -> Iterator[Violation]:
    try:
        format = from_wire(message.format)
    except ValueError as error:
        yield Violation("format", str(error))
        return
    if not message.HasField("quality"):
        return
    if not limits.is_quality(message.quality):
        yield Violation("quality", f"must be {limits.MIN_QUALITY} to {limits.MAX_QUALITY}, not {message.quality}")
    elif not format.has_quality:
        yield Violation("quality", f"must be absent for {format.name}, which is lossless, not {message.quality}")


def _calling(message: images_pb2.GenerateRequest, model: ModelLimits | None, streams: bool) -> Iterator[Violation]:
    if model and message.HasField("model") and message.model != model.name:
        yield Violation("model", f"unknown model {message.model[:80]!r}; served here: {model.name}")
    if message.preview_every and not streams:
        yield Violation("preview_every", f"must be 0 in Generate, not {message.preview_every}: use GenerateStream")
    elif model and message.preview_every > model.scales:
        yield Violation("preview_every", f"must be 0 to {model.scales}, not {message.preview_every}")
    if message.HasField("request_id") and not limits.is_request_id(message.request_id):
        length = f"1 to {limits.MAX_REQUEST_ID_CHARACTERS}"
        yield Violation("request_id", f"must be {length} visible ASCII characters, not {message.request_id[:80]!r}")


def _within(value: float, largest: float) -> bool:
    return math.isfinite(value) and 0 <= value <= largest
