"""What an operator can tell the text encoder stage."""

from __future__ import annotations

from pydantic import Field

from common.stages import TEXT_ENCODER
from runtime.settings import MAX_INT32, BatchingSettings


class TextEncoderSettings(BatchingSettings):
    """The text encoder stage's settings."""

    port: int = Field(default=TEXT_ENCODER.port, ge=0, le=65535)
    """The port of the gRPC server; 0 lets the system choose."""
    max_message_bytes: int = Field(default=2**20, ge=1024, le=MAX_INT32)
    """The largest message taken. A prompt takes 8 KB at most; by the Open Inference Protocol `max_batch` may come."""
    cache_bytes: int = Field(default=256 * 2**20, ge=0)
    """How much memory encoded prompts may take, so that a prompt that comes again costs nothing; 0: none is kept."""
