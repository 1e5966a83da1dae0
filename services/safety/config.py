"""What an operator can tell the safety stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from runtime.errors import InvalidRequest
from runtime.prompt import checked
from runtime.settings import MAX_INT32, BatchingSettings


def _trimmed(text: str) -> str:
    try:
        return checked(text)
    except InvalidRequest as error:  # as every stage after this one would refuse it
        raise ValueError(error.violations[0].description) from None


class SafetySettings(BatchingSettings):
    """The safety stage's settings."""

    port: int = Field(default=50052, ge=0, le=65535)
    """The port of the gRPC server; 0 lets the system choose."""
    max_message_bytes: int = Field(default=2**20, ge=1024, le=MAX_INT32)
    """The largest message taken. A prompt takes 8 KB at most; by the Open Inference Protocol `max_batch` may come."""
    unsafe_action: Literal["refuse", "replace"] = "refuse"
    """What follows for an unsafe prompt: it is refused, or `replacement_prompt` is drawn in its place."""
    replacement_prompt: Annotated[str, AfterValidator(_trimmed)] = "A red heart."
    """What is drawn in an unsafe prompt's place, where `unsafe_action` says so."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """A prompt is unsafe above this score; absent: the checkpoint's own threshold."""
