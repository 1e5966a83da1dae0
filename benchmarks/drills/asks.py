"""What is asked of the cluster under drill, and the pictures that each ask has in peace. Knows no failure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from hart.aio import AsyncClient
from hart.request import Options
from hart.results import Image
from PIL import Image as Pillow

from tests.e2e.checkpoint import PROMPTS

PIXEL_TOLERANCE = {"png": 2, "jpeg": 8}
"""Of 255: what a picture may differ by when it was batched with others; JPEG's rounding on top of it."""


@dataclass(frozen=True)
class Ask:
    """One request."""

    prompt: str
    seed: int
    num_images: int = 1
    format: str = "png"
    preview_every: int = 0
    streams: bool = False

    def options(self) -> Options:
        """What the client takes beside the prompt.

        Drawn codes, not soft ones: with a drill's random weights soft codes turn a batch's rounding into another
        picture. That soft ones stand batching too is held on the bundled checkpoint (tests/model/test_bundled.py).
        """
        chosen = Options(seed=self.seed, num_images=self.num_images, format=self.format, more_smooth=False)
        if self.preview_every:
            chosen["preview_every"] = self.preview_every
        return chosen

    @property
    def plain(self) -> Ask:
        """The ask that leads to the same pictures, without the ways of getting them."""
        return replace(self, preview_every=0, streams=False)


def mixed(seeds: int = 3) -> list[Ask]:
    """Unary and streams, one picture and several, two formats, with and without previews; all pictures differ."""
    asks = []
    for number, prompt in enumerate(PROMPTS):
        for seed in range(seeds):
            own = 1000 * number + seed
            asks += [
                Ask(prompt, own),
                Ask(prompt, own, streams=True),
                Ask(prompt, own, streams=True, preview_every=2),
            ]
        asks += [
            Ask(prompt, 1000 * number + 77, format="jpeg"),
            Ask(prompt, 1000 * number + 88, num_images=2, streams=number % 2 == 0),
        ]
    return asks


class Truth:
    """The pictures of asks as they were drawn one at a time, with nothing else going on."""

    def __init__(self) -> None:
        self._pictures: dict[Ask, list[bytes]] = {}
        self.inexact = 0
        """Pictures judged right whose files differed by a byte."""

    async def learn(self, client: AsyncClient, asks: Sequence[Ask]) -> Truth:
        """Draw every ask in peace."""
        for ask in dict.fromkeys(ask.plain for ask in asks):
            if ask not in self._pictures:
                answer = await client.generate(ask.prompt, timeout=120, **ask.options())
                self._pictures[ask] = [image.data for image in answer]
        files = [data for pictures in self._pictures.values() for data in pictures]
        if len(set(files)) != len(files):
            raise RuntimeError("two different asks led to the same picture: a mix-up would go unseen")
        return self

    def fault(self, ask: Ask, images: Sequence[Image]) -> str:
        """What is wrong with the answer to this ask; "" where nothing is."""
        right = self._pictures[ask.plain]
        if sorted(image.index for image in images) != list(range(ask.num_images)):
            return f"{len(images)} pictures instead of {ask.num_images}"
        for image in images:
            if image.data == right[image.index]:
                continue
            self.inexact += 1
            difference = _difference(image.data, right[image.index])
            if difference > PIXEL_TOLERANCE[ask.format]:
                return f"another picture: pixels differ by {difference} of 255"
        return ""


def _difference(one: bytes, other: bytes) -> int:
    a, b = (np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"), np.int16) for data in (one, other))
    return int(abs(a - b).max()) if a.shape == b.shape else 255
