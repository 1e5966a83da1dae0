"""`python -m benchmarks.sleeping.decoder`: black images, after the profile's seconds of decoding and encoding."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence

import numpy as np

from benchmarks.sleeping.engine import DIGEST, Sleeper, Table, profile_of, put_into
from model import image_file
from model.pixels import Pixels
from runtime.server.process import run
from services.decoder import assembly, image_encoder
from services.decoder.config import DecoderSettings
from services.decoder.engine import DecoderEngine, Job

PROFILE, SLEEPER = profile_of("decoder"), Sleeper()
TABLE = Table(PROFILE["batch"])
_of_thread = threading.local()


class SleepingDecoder(DecoderEngine):
    """Each image is black."""

    def load(self) -> list[tuple[float, float]]:
        """Loads no weights."""
        self.digest = DIGEST
        return [(1, TABLE.of(1))]

    def run(self, jobs: Sequence[Job]) -> list[Pixels | BaseException]:
        """Pixels of the jobs' side."""
        SLEEPER.sleep(TABLE.of(len(jobs)))
        side = jobs[0].side * self.upsampling
        return [np.zeros((side, side, 3), np.uint8)] * len(jobs)


@functools.cache
def _file(side: int, format: str) -> bytes:
    """Made once: only the sleep takes time."""
    return image_file.encode(np.zeros((side, side, 3), np.uint8), format, 92, None)


def sleeping_encode(pixels: Pixels, format: str, quality: int, recipe: str | None, *, marked: bool) -> bytes:
    """A black image's file, without its recipe and mark."""
    if not hasattr(_of_thread, "sleeper"):
        _of_thread.sleeper = Sleeper()
    _of_thread.sleeper.sleep(PROFILE["encode_seconds"][format.lower()])
    return _file(pixels.shape[0], format)


if __name__ == "__main__":
    put_into(assembly, DecoderEngine=SleepingDecoder)
    put_into(image_encoder, encode=sleeping_encode)
    run(DecoderSettings, "decoder", assembly.build)
