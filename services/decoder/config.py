"""Settings of the decoder stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from common.stages import DECODER
from runtime.settings import BatchingSettings


class DecoderSettings(BatchingSettings):
    """Settings of the decoder stage."""

    port: int = Field(default=DECODER.port, ge=0, le=65535)
    """The port of the gRPC server. 0: the system chooses a free port."""
    engine: Literal["auto", "torch", "onnx"] = "auto"
    """What computes: torch, or ONNX Runtime in float32 on a CPU; auto: ONNX Runtime where it can and is installed."""
    max_batch: int = Field(default=4, ge=1)
    """Max latents in a batch. Also the max batch dimension of an Open Inference Protocol request."""
    encode_threads: int = Field(default=2, ge=1)
    """Threads that encode image files."""
    mark_ai_generated: bool = True
    """Marks every image file as made by AI, in XMP: IPTC digital source type trainedAlgorithmicMedia. Callers cannot
    turn it off."""
    graphs: bool = True
    """On a GPU, replays the decoding of one full-size latent as a CUDA graph."""
