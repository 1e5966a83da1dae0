"""Settings of the safety stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from common.prompt import checked_prompt
from common.stages import SAFETY
from runtime.settings import MAX_INT32, BatchingSettings


class SafetySettings(BatchingSettings):
    """Settings of the safety stage."""

    port: int = Field(default=SAFETY.port, ge=0, le=65535)
    """The port of the gRPC server. 0: the system chooses a free port."""
    max_message_bytes: int = Field(default=2**20, ge=1024, le=MAX_INT32)
    """Max size of a received message. A prompt takes at most 8 KB; an Open Inference Protocol request may hold
    `max_batch` of them."""
    unsafe_action: Literal["refuse", "replace"] = "refuse"
    """The action for an unsafe prompt: refuse it, or generate `replacement_prompt` instead."""
    replacement_prompt: Annotated[str, AfterValidator(checked_prompt)] = "A red heart."
    """The prompt that replaces an unsafe one if `unsafe_action` is replace."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """A prompt with a higher score is unsafe. Absent: the checkpoint's threshold."""
