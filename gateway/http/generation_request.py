"""The body of `POST /v1/images/generations`: its fields with their documentation, and its GenerateRequest."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from hart.v1 import images_pb2, stage_pb2
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from common import image_formats, limits
from common.seeds import MAX_SEED
from gateway.http.errors import InvalidBody
from runtime.errors import Violation
from runtime.image_messages import to_wire

MAX_PARTIAL_IMAGES = 3
SIZE_PATTERN = r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"
MAX_VALUE_CHARACTERS = 80
REASONS = {"response_format": {"url": "images are returned in the response, not stored: use b64_json"}}
"""Why a value of the OpenAI API is refused, by field."""


class GenerationRequest(BaseModel):
    """What to draw. Unknown fields are refused. `null` means absent."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)

    prompt: str = Field(
        description=f"What to draw: 1 to {limits.MAX_PROMPT_CHARACTERS} characters after trimming.",
        json_schema_extra={"minLength": 1},
        examples=["a red heart"],
    )
    model: str | None = Field(None, description="A name of GET /v1/models. Default: the only model.")
    n: int | None = Field(
        None, ge=1, le=limits.MAX_IMAGES, description=f"Number of images. Default: {limits.DEFAULT_IMAGES}."
    )
    size: str | None = Field(
        None,
        description="`auto`, or the model's size as WIDTHxHEIGHT. Default: `auto`.",
        json_schema_extra={"pattern": SIZE_PATTERN},
    )
    quality: Literal["auto"] | None = Field(None, description="The model has one quality.")
    output_format: Literal["png", "jpeg", "webp"] | None = Field(None, description="Default: png.")
    output_compression: int | None = Field(
        None,
        ge=limits.MIN_QUALITY,
        le=limits.MAX_QUALITY,
        description=f"Quality of a jpeg or webp file. Refused for png. Default: {limits.DEFAULT_QUALITY}.",
    )
    response_format: Literal["b64_json"] | None = Field(None, description="Images are returned as base64.")
    background: Literal["auto", "opaque"] | None = Field(None, description="Images are opaque.")
    moderation: Literal["auto"] | None = Field(None, description="The operator chooses the safety policy.")
    user: str | None = Field(None, description="Your end user. The audit log has its hash.")
    safety_identifier: str | None = Field(None, description="The same; used where both are given.")
    stream: bool | None = Field(None, description="Send server-sent events. Default: false.")
    partial_images: int | None = Field(
        None,
        ge=0,
        le=MAX_PARTIAL_IMAGES,
        description="With `stream`: at most so many small previews per image, spread over its scales. Default: 0.",
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="Extension: the first image's seed. Default: derived from Idempotency-Key if given, else random.",
    )
    guidance: float | None = Field(
        None, ge=0, le=limits.MAX_GUIDANCE, description="Extension: classifier-free guidance. Default: the model's."
    )
    more_smooth: bool | None = Field(None, description="Extension: soft tokens. Default: the model's.")
    top_p: float | None = Field(
        None, ge=0, le=limits.MAX_TOP_P, description="Extension: nucleus sampling; 0 is off. Default: the model's."
    )
    residual_temperature: float | None = Field(
        None,
        ge=0,
        le=limits.MAX_RESIDUAL_TEMPERATURE,
        description="Extension: scale of the residual diffusion's noise. Default: the model's.",
    )
    embed_metadata: bool | None = Field(
        None, description="Extension: embed the recipe (prompt included) in the file. Default: true."
    )

    @property
    def streams(self) -> bool:
        """Whether the response is a stream of events."""
        return bool(self.stream)

    @property
    def end_user(self) -> str:
        """The caller's end user; "" where absent."""
        return self.safety_identifier or self.user or ""

    def to_message(self, request_id: str | None, shape: stage_pb2.ModelShape) -> images_pb2.GenerateRequest:
        """The same request on the wire. Raises InvalidBody naming a field that does not fit the model."""
        bad = [*self._unfit(shape)]
        if bad:
            raise InvalidBody(bad)
        message = images_pb2.GenerateRequest(
            prompt=self.prompt,
            model=self.model,
            num_images=self.n,
            seed=self.seed,
            quality=self.output_compression,
            embed_metadata=self.embed_metadata,
            request_id=request_id,
            preview_every=preview_every(self.partial_images or 0, len(shape.scales)),
            **{name: getattr(self, name) for name in limits.SAMPLING_FIELDS},
        )
        if self.output_format is not None:
            message.format = to_wire(image_formats.FORMATS[self.output_format.upper()])
        return message

    def _unfit(self, shape: stage_pb2.ModelShape) -> Sequence[Violation]:
        bad = []
        if self.size not in (None, *sizes(shape)):
            bad.append(Violation("size", f"must be {' or '.join(sizes(shape))}, not {_shown(self.size)}"))
        if self.partial_images and not self.streams:
            bad.append(Violation("partial_images", f"must be 0 without stream, not {self.partial_images}"))
        return bad


def sizes(shape: stage_pb2.ModelShape) -> tuple[str, ...]:
    """The values of `size` that a model has."""
    return ("auto", f"{shape.width}x{shape.height}") if shape.width and shape.height else ("auto",)


def preview_every(partial_images: int, scales: int) -> int:
    """The distance in scales of at least `partial_images` previews before the last scale, as even as it can be; 0 for
    none."""
    if not partial_images or scales < 2:
        return 0
    even = -(-scales // (partial_images + 1))
    return even if (scales - 1) // even >= partial_images else max(1, (scales - 1) // partial_images)


def parse(body: bytes) -> GenerationRequest:
    """The request of a JSON body. Raises InvalidBody naming every bad field with its value."""
    if not body.strip():
        raise InvalidBody.field("", "the body is empty")
    try:
        return GenerationRequest.model_validate_json(body)
    except ValidationError as error:
        raise InvalidBody([_violation(one) for one in error.errors(include_url=False)]) from None


def rule(schema: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words: "an integer from 1 to 8"."""
    options = schema.get("anyOf", [schema])
    chosen: Mapping[str, Any] = next((one for one in options if one.get("type") != "null"), {})
    if "const" in chosen or "enum" in chosen:
        return " or ".join(chosen.get("enum", [chosen.get("const")]))
    words = {"integer": "an integer", "number": "a number", "string": "a string", "boolean": "true or false"}
    bounds = f" from {chosen['minimum']:g} to {_number(chosen['maximum'])}" if "maximum" in chosen else ""
    return words.get(chosen.get("type", ""), "valid") + bounds


def _violation(error: ErrorDetails) -> Violation:
    field = str(error["loc"][0]) if error["loc"] else ""
    match error["type"]:
        case "json_invalid":
            return Violation("", f"the body is not valid JSON: {error['ctx']['error']}")
        case "missing":
            return Violation(field, "is required")
        case "extra_forbidden":
            near = difflib.get_close_matches(field, _PROPERTIES, 1, 0.7)
            hint = f": did you mean {near[0]}?" if near else f"; the fields are {', '.join(_PROPERTIES)}"
            return Violation(field[:MAX_VALUE_CHARACTERS], f"unknown field{hint}")
    if field not in _PROPERTIES:
        return Violation("", f"the body must be a JSON object, not {_shown(error['input'])}")
    value = error["input"]
    reason = REASONS.get(field, {}).get(value, "") if isinstance(value, str) else ""
    return Violation(
        field, f"must be {rule(_PROPERTIES[field])}, not {_shown(value)}" + (f"; {reason}" if reason else "")
    )


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_VALUE_CHARACTERS else text[: MAX_VALUE_CHARACTERS - 1] + "…"


_PROPERTIES: Mapping[str, Any] = GenerationRequest.model_json_schema()["properties"]
