"""What an operator can tell the text encoder stage."""

from __future__ import annotations

from pydantic import Field

from runtime.settings import BatchingSettings


class TextEncoderSettings(BatchingSettings):
    """The text encoder stage's settings."""

    port: int = Field(default=50053, ge=0, le=65535)
    """The port of the gRPC server; 0 lets the system choose."""
    cache_bytes: int = Field(default=256 * 2**20, ge=0)
    """How much memory encoded prompts may take, so that a prompt that comes again costs nothing; 0: none is kept."""
