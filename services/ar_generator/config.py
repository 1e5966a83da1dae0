"""Settings of the generator stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from common.stages import AR_GENERATOR
from runtime.settings import StageSettings


class ArGeneratorSettings(StageSettings):
    """Settings of the generator stage."""

    port: int = Field(default=AR_GENERATOR.port, ge=0, le=65535)
    """The port of the gRPC server. 0: the system chooses a free port."""
    engine: Literal["auto", "torch", "onnx"] = "auto"
    """What computes: torch, or ONNX Runtime in float32 on a CPU; auto: ONNX Runtime where it can and is installed."""
    slots: int | None = Field(default=None, ge=1, le=1024)
    """Max images in progress. Absent: as many as fit into `kv_cache_bytes`, at most `max_batch`."""
    kv_cache_bytes: int = Field(default=8 * 2**30, ge=1)
    """Memory for the KV cache of the images in progress. A full-size image takes 1.67 GB in half precision."""
    max_batched_tokens: int | None = Field(default=None, ge=1)
    """Max rows of tokens in a batch; one image always runs. At scales where one image keeps the device busy, batching
    only adds latency. Absent: 128 on a CPU, 2048 on a GPU."""
    max_starvation_seconds: float = Field(default=0.1, ge=0)
    """Max time that an image at a small scale waits for older images. After it that image's scale runs in between."""
    graphs: bool = True
    """On a GPU, replays a scale's launches as a CUDA graph where launching them takes longer than running them."""
