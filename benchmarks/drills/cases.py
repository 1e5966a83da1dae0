"""The requests of the drills, and the images that each one gets without load or faults. Knows no fault."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from hart.aio import AsyncClient
from hart.request import Options
from hart.results import Image
from PIL import Image as Pillow

from benchmarks.harness.checkpoint import PROMPTS

PIXEL_TOLERANCE = {"png": 2, "jpeg": 8}
"""Of 255: the difference that batching may cause in a pixel; for JPEG with its own rounding."""


@dataclass(frozen=True)
class RequestCase:
    """One request."""

    prompt: str
    seed: int
    num_images: int = 1
    format: str = "png"
    preview_every: int = 0
    streams: bool = False

    def options(self) -> Options:
        """The client's options beside the prompt.

        Sampled codes, not `more_smooth`: with random weights, smoothed codes turn a batch's rounding into another
        image. tests/model/slow/test_bundled.py covers smoothed codes in batches, on the bundled checkpoint.
        """
        chosen = Options(seed=self.seed, num_images=self.num_images, format=self.format, more_smooth=False)
        if self.preview_every:
            chosen["preview_every"] = self.preview_every
        return chosen

    @property
    def plain(self) -> RequestCase:
        """The case with the same images, without streaming and previews."""
        return replace(self, preview_every=0, streams=False)


def mixed(seeds: int = 3) -> list[RequestCase]:
    """Unary and streams, one image and several, two formats, with and without previews; all images differ."""
    cases = []
    for number, prompt in enumerate(PROMPTS):
        for seed in range(seeds):
            own = 1000 * number + seed
            cases += [
                RequestCase(prompt, own),
                RequestCase(prompt, own, streams=True),
                RequestCase(prompt, own, streams=True, preview_every=2),
            ]
        cases += [
            RequestCase(prompt, 1000 * number + 77, format="jpeg"),
            RequestCase(prompt, 1000 * number + 88, num_images=2, streams=number % 2 == 0),
        ]
    return cases


class References:
    """The images of cases that were drawn one at a time, without load or faults."""

    def __init__(self) -> None:
        self._images: dict[RequestCase, list[bytes]] = {}
        self.inexact = 0
        """Number of images within the tolerance whose files differ."""

    async def learn(self, client: AsyncClient, cases: Sequence[RequestCase]) -> References:
        """Draw every case, one at a time."""
        for case in dict.fromkeys(case.plain for case in cases):
            if case not in self._images:
                answer = await client.generate(case.prompt, timeout=120, **case.options())
                self._images[case] = [image.data for image in answer]
        files = [data for images in self._images.values() for data in images]
        if len(set(files)) != len(files):
            raise RuntimeError("two different cases have the same image: a mix-up would not be detected")
        return self

    def fault(self, case: RequestCase, images: Sequence[Image]) -> str:
        """What is wrong with the answer to this case; "" if nothing is."""
        right = self._images[case.plain]
        if sorted(image.index for image in images) != list(range(case.num_images)):
            return f"{len(images)} images instead of {case.num_images}"
        for image in images:
            if image.data == right[image.index]:
                continue
            self.inexact += 1
            difference = _difference(image.data, right[image.index])
            if difference > PIXEL_TOLERANCE[case.format]:
                return f"another image: pixels differ by {difference} of 255"
        return ""


def _difference(one: bytes, other: bytes) -> int:
    a, b = (np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"), np.int16) for data in (one, other))
    return int(abs(a - b).max()) if a.shape == b.shape else 255
