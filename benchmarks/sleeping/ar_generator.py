"""`python -m benchmarks.sleeping.ar_generator`: latents of zeros, scale by scale, after the profile's seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.sleeping.engine import DIGEST, Sleeper, Table, profile_of, put_into
from runtime.server.process import run
from services.ar_generator import assembly
from services.ar_generator.config import ArGeneratorSettings
from services.ar_generator.engine import Array, GenerationRequest, GeneratorEngine, Step

PROFILE, SLEEPER = profile_of("ar_generator"), Sleeper()
TABLES = [Table(one) for one in PROFILE["scales"]]


@dataclass
class SleepingState:
    """An image in progress."""

    scale: int = 0


class SleepingGenerator(GeneratorEngine):
    """Its slots and max batches are the profile's."""

    def __init__(self, settings: ArGeneratorSettings) -> None:
        super().__init__(settings)
        if len(TABLES) != self.scales:
            raise SystemExit(f"the profile has {len(TABLES)} scales, the checkpoint {self.scales}")
        self.slots = PROFILE["slots"]
        self.max_batch_per_scale = list(PROFILE["max_batch_per_scale"])

    def load(self) -> list[list[tuple[int, float]]]:
        """Loads no weights."""
        self.digest = DIGEST
        sizes = zip(TABLES, self.max_batch_per_scale, strict=True)
        return [[(size, table.of(size)) for size in sorted({1, widest})] for table, widest in sizes]

    def begin(self, request: GenerationRequest) -> Any:
        """A state without a slot of memory."""
        return SleepingState()

    def advance(self, images: Sequence[tuple[Any, GenerationRequest]]) -> Step:
        """Sleep for the next scale."""
        started_ns, started = time.time_ns(), time.perf_counter()
        scale = images[0][0].scale
        SLEEPER.sleep(TABLES[scale].of(len(images)))
        for state, _ in images:
            state.scale += 1
        latents: list[Array | BaseException | None] = [self._latent(state, request) for state, request in images]
        return Step(scale, latents, started_ns, time.perf_counter() - started)

    def _latent(self, state: SleepingState, request: GenerationRequest) -> Array | None:
        if state.scale < self.scales and not request.previews(state.scale - 1):
            return None
        return np.zeros((self.channels, self.config.side, self.config.side), np.float32)

    def release(self, state: Any) -> None:
        """Nothing is held."""


if __name__ == "__main__":
    put_into(assembly, GeneratorEngine=SleepingGenerator)
    run(ArGeneratorSettings, "ar_generator", assembly.build)
