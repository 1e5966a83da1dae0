"""What an operator can tell the generator stage."""

from __future__ import annotations

from pydantic import Field

from common.stages import AR_GENERATOR
from runtime.settings import StageSettings


class ArGeneratorSettings(StageSettings):
    """The generator stage's settings."""

    port: int = Field(default=AR_GENERATOR.port, ge=0, le=65535)
    """The port of the gRPC server; 0 lets the system choose."""
    slots: int | None = Field(default=None, ge=1, le=1024)
    """Pictures that may be in work at the same time; absent: what `kv_cache_bytes` holds, at most `max_batch`."""
    kv_cache_bytes: int = Field(default=8 * 2**30, ge=1)
    """Memory for keys and values of the pictures in work. At full size a picture takes 1.67 GB in half precision."""
    max_batched_tokens: int | None = Field(default=None, ge=1)
    """A scale is drawn for so many pictures at once that they have no more rows of tokens than this (always for one).
    Where one picture keeps the device busy, company only delays it. Absent: 128 on a CPU, 2048 on a GPU."""
    max_starvation_seconds: float = Field(default=0.1, ge=0)
    """The oldest picture goes first; one at a small scale that has stood still for longer than this goes in between."""
