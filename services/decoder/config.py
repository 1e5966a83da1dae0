"""What an operator can tell the decoder stage."""

from __future__ import annotations

from pydantic import Field

from common.stages import DECODER
from runtime.settings import BatchingSettings


class DecoderSettings(BatchingSettings):
    """The decoder stage's settings."""

    port: int = Field(default=DECODER.port, ge=0, le=65535)
    """The port of the gRPC server; 0 lets the system choose."""
    max_batch: int = Field(default=4, ge=1)
    """The most latents that are decoded together; also the most of one request by the Open Inference Protocol."""
    encode_threads: int = Field(default=2, ge=1)
    """Threads that turn pixels into image files, beside the engine."""
