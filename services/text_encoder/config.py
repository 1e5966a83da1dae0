"""Settings of the text encoder stage."""

from __future__ import annotations

from pydantic import Field

from common.stages import TEXT_ENCODER
from runtime.settings import MAX_INT32, BatchingSettings


class TextEncoderSettings(BatchingSettings):
    """Settings of the text encoder stage."""

    port: int = Field(default=TEXT_ENCODER.port, ge=0, le=65535)
    """The port of the gRPC server. 0: the system chooses a free port."""
    max_message_bytes: int = Field(default=2**20, ge=1024, le=MAX_INT32)
    """Max size of a received message. A prompt takes at most 8 KB; an Open Inference Protocol request may hold
    `max_batch` of them."""
    cache_bytes: int = Field(default=256 * 2**20, ge=0)
    """Max memory of the cache of encoded prompts. 0: no cache."""
