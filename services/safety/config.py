"""What an operator can tell the safety stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from common.prompt import checked_prompt
from common.stages import SAFETY
from runtime.settings import MAX_INT32, BatchingSettings


class SafetySettings(BatchingSettings):
    """The safety stage's settings."""

    port: int = Field(default=SAFETY.port, ge=0, le=65535)
    """The port of the gRPC server; 0 lets the system choose."""
    max_message_bytes: int = Field(default=2**20, ge=1024, le=MAX_INT32)
    """The largest message taken. A prompt takes 8 KB at most; by the Open Inference Protocol `max_batch` may come."""
    unsafe_action: Literal["refuse", "replace"] = "refuse"
    """What follows for an unsafe prompt: it is refused, or `replacement_prompt` is drawn in its place."""
    replacement_prompt: Annotated[str, AfterValidator(checked_prompt)] = "A red heart."
    """What is drawn in an unsafe prompt's place, where `unsafe_action` says so."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """A prompt is unsafe above this score; absent: the checkpoint's own threshold."""
