"""A GenerateRequest from the wire, checked field by field, to a PictureRequest. Knows no stage.

Bytes that do not parse, unknown fields and unknown enum values are refused before (runtime.server.messages).
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from hart.v1 import decoder_pb2, images_pb2

from gateway import seeds
from runtime.errors import InvalidRequest, Violation
from runtime.prompt import LONGEST, characters, has_visible, trimmed

MAX_PROMPT_CHARACTERS = LONGEST
MAX_IMAGES = 8
MAX_GUIDANCE = 20.0
MAX_REQUEST_ID_CHARACTERS = 128
DEFAULTS = images_pb2.Defaults(
    num_images=1,
    guidance=4.5,
    more_smooth=True,
    top_p=0.0,
    format=decoder_pb2.IMAGE_FORMAT_PNG,
    quality=92,
    embed_metadata=True,
)
FORMATS = (decoder_pb2.IMAGE_FORMAT_PNG, decoder_pb2.IMAGE_FORMAT_JPEG, decoder_pb2.IMAGE_FORMAT_WEBP)


@dataclass(frozen=True)
class ImageRequest:
    """What to draw, with every default filled in."""

    request_id: str
    """As given, or made."""
    prompt: str
    """Trimmed."""
    seeds: tuple[int, ...]
    """One per picture."""
    guidance: float
    more_smooth: bool
    top_p: float
    encoding: decoder_pb2.ImageEncoding
    """Format and quality of the files."""
    preview_every: int
    embed_metadata: bool
    result_only: bool = field(default=False, compare=False)
    """Whoever asked hears of no scales: it is answered at once. A stream that joins it hears of them at their end."""

    @property
    def num_images(self) -> int:
        """How many pictures."""
        return len(self.seeds)


@dataclass(frozen=True)
class ModelLimits:
    """What a request may ask of the model that is served; made from what the stages say of themselves."""

    model: str
    """Its name."""
    scales: int
    """Scales per picture."""


def validate(message: images_pb2.GenerateRequest, limits: ModelLimits | None, *, streams: bool) -> ImageRequest:
    """The request with its defaults. Raises InvalidRequest naming every bad field with its value.

    `limits`: None while no generator has answered yet: what depends on the model is then not checked. `streams`: True
    for GenerateStream, the only call that can send previews.
    """
    found = [*_drawing(message), *_file(message), *_calling(message, limits, streams)]
    if found:
        raise InvalidRequest(found)
    request_id = message.request_id if message.HasField("request_id") else uuid.uuid4().hex
    count = message.num_images if message.HasField("num_images") else DEFAULTS.num_images
    seed = _seed(message)
    return ImageRequest(
        request_id=request_id,
        prompt=trimmed(message.prompt),
        seeds=tuple(seeds.seed_of_image(seed, index) for index in range(count)),
        guidance=message.guidance if message.HasField("guidance") else DEFAULTS.guidance,
        more_smooth=message.more_smooth if message.HasField("more_smooth") else DEFAULTS.more_smooth,
        top_p=message.top_p,
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
    if encoding.format != decoder_pb2.IMAGE_FORMAT_PNG:
        encoding.quality = message.quality if message.HasField("quality") else DEFAULTS.quality
    return encoding


def _drawing(message: images_pb2.GenerateRequest) -> Iterator[Violation]:
    prompt = trimmed(message.prompt)
    length = characters(prompt)
    if not 1 <= length <= MAX_PROMPT_CHARACTERS:
        yield Violation("prompt", f"must have 1 to {MAX_PROMPT_CHARACTERS} characters after trimming, not {length}")
    elif not has_visible(prompt):
        yield Violation("prompt", f"must hold something that can be seen, not {prompt[:40]!a}")
    if message.HasField("num_images") and not 1 <= message.num_images <= MAX_IMAGES:
        yield Violation("num_images", f"must be 1 to {MAX_IMAGES}, not {message.num_images}")
    if not _within(message.guidance, MAX_GUIDANCE):
        yield Violation("guidance", f"must be 0 to {MAX_GUIDANCE:g}, not {message.guidance:g}")
    if not _within(message.top_p, 1.0):
        yield Violation("top_p", f"must be 0 to 1, not {message.top_p:g}")


def _file(message: images_pb2.GenerateRequest) -> Iterator[Violation]:
    if message.format and message.format not in FORMATS:
        yield Violation("format", f"unknown value {message.format}")
    if not message.HasField("quality"):
        return
    if not 1 <= message.quality <= 100:
        yield Violation("quality", f"must be 1 to 100, not {message.quality}")
    elif message.format in (decoder_pb2.IMAGE_FORMAT_UNSPECIFIED, decoder_pb2.IMAGE_FORMAT_PNG):
        yield Violation("quality", f"must be absent for PNG, which is lossless, not {message.quality}")


def _calling(message: images_pb2.GenerateRequest, limits: ModelLimits | None, streams: bool) -> Iterator[Violation]:
    if limits and message.HasField("model") and message.model != limits.model:
        yield Violation("model", f"unknown model {message.model[:80]!r}; served here: {limits.model}")
    if message.preview_every and not streams:
        yield Violation("preview_every", f"must be 0 in Generate, not {message.preview_every}: use GenerateStream")
    elif limits and message.preview_every > limits.scales:
        yield Violation("preview_every", f"must be 0 to {limits.scales}, not {message.preview_every}")
    if message.HasField("request_id") and not _visible(message.request_id):
        detail = f"must be 1 to {MAX_REQUEST_ID_CHARACTERS} visible ASCII characters, not {message.request_id[:80]!r}"
        yield Violation("request_id", detail)


def _within(value: float, largest: float) -> bool:
    return math.isfinite(value) and 0 <= value <= largest


def _visible(text: str) -> bool:
    return 1 <= len(text) <= MAX_REQUEST_ID_CHARACTERS and all("!" <= c <= "~" for c in text)
