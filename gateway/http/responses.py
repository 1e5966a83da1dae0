"""What the HTTP API returns, as the OpenAI API shapes it. Fields marked as extensions are ours."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

OutputFormat = Literal["png", "jpeg", "webp"]


class _Response(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=False)

    def to_json(self) -> bytes:
        """JSON without the absent fields."""
        return self.model_dump_json(exclude_none=True).encode()


class InputTokens(_Response):
    """The prompt's tokens."""

    text_tokens: int
    image_tokens: int = 0


class Usage(_Response):
    """Tokens of the prompt, and generated tokens over all scales of every image."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt_tokens: int, drawn_tokens: int) -> Usage:
        """From the two counts."""
        return cls(
            input_tokens=prompt_tokens,
            input_tokens_details=InputTokens(text_tokens=prompt_tokens),
            output_tokens=drawn_tokens,
            total_tokens=prompt_tokens + drawn_tokens,
        )


class ImageData(_Response):
    """One image."""

    b64_json: str = Field(description="The file, in base64.")
    seed: int = Field(description="Extension: requested alone with this seed, the same image is returned.")
    revised_prompt: str | None = Field(None, description="What was drawn, where the prompt was replaced.")


class ImagesResponse(_Response):
    """The images, in order of their index."""

    created: int = Field(description="Unix time in seconds.")
    data: list[ImageData]
    background: Literal["opaque"] = "opaque"
    output_format: OutputFormat
    size: str = Field(description="WIDTHxHEIGHT in pixels.")
    usage: Usage
    model: str = Field(description="Extension: the model's name.")
    warnings: list[str] | None = Field(None, description="Extension: sentences for users.")


class _Event(_Response):
    b64_json: str = Field(description="The file, in base64.")
    background: Literal["opaque"] = "opaque"
    created_at: int = Field(description="Unix time in seconds.")
    output_format: OutputFormat
    quality: Literal["auto"] = "auto"
    size: str = Field(description="WIDTHxHEIGHT of this file in pixels.")
    image_index: int = Field(description="Extension: the image, from 0.")
    seed: int = Field(description="Extension: the image's seed.")


class PartialImageEvent(_Event):
    """A small preview of an unfinished image."""

    type: Literal["image_generation.partial_image"] = "image_generation.partial_image"
    partial_image_index: int = Field(description="From 0, for each image.")


class CompletedEvent(_Event):
    """A finished image. The first one's usage includes the prompt's tokens, which are encoded once."""

    type: Literal["image_generation.completed"] = "image_generation.completed"
    usage: Usage
    revised_prompt: str | None = Field(None, description="Extension: what was drawn, where the prompt was replaced.")
    warnings: list[str] | None = Field(None, description="Extension: sentences for users.")


class Model(_Response):
    """A model that a request can name."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix time in seconds at which this server started.")
    owned_by: Literal["hart"] = "hart"
    digest: str = Field(description="Extension: the checkpoint's digest.")
    size: str = Field(description="Extension: WIDTHxHEIGHT of its images.")


class ModelList(_Response):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]


class ErrorDetail(_Response):
    """What went wrong."""

    message: str
    type: str
    param: str | None = Field(description="The first bad field.")
    code: str


class ErrorResponse(_Response):
    """An error."""

    error: ErrorDetail


class Health(_Response):
    """The process's state."""

    status: Literal["ok", "not ready"]
