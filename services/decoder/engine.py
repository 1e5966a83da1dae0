"""The decoder: latents to pixels, in batches of one size. Knows no file format and no wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from model.checkpoint import Checkpoint, bundled
from model.device import Compute
from model.errors import ModelError, NotFiniteError
from model.image_file import Pixels, to_pixels
from model.quantizer import downsample
from model.tokenizer import HybridTokenizer
from runtime.work.self_test import SelfTest, SelfTestFailed
from services.decoder.config import DecoderSettings

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Job:
    """A latent, and how large its picture shall be."""

    latent: Array
    """(Z, N, N), float32."""
    side: int
    """The side n <= N to which the latent is area-reduced before it is decoded; N: not at all."""


class DecoderEngine:
    """Loaded by `load`; `run` belongs on the same thread."""

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings
        with settings.as_settings_error("device", ModelError):
            self.compute = Compute.of(settings.device, settings.dtype, settings.torch_threads)
        with settings.as_settings_error("checkpoint", ModelError):
            self.checkpoint = Checkpoint.open(settings.checkpoint or bundled())
            config = self.checkpoint.tokenizer_config
        self.scales, self.channels = config.v_patch_nums, config.z_channels
        self.side, self.upsampling = config.side, config.downsampling
        self.digest = ""
        shape = (self.picture_side, self.picture_side, 3)
        self._self_test = SelfTest(self._probe, {"the picture": shape}, ("the picture",))

    @property
    def picture_side(self) -> int:
        """Pixels along one side of a full picture."""
        return self.side * self.upsampling

    def latent_side(self, pixels: int) -> int:
        """The side of the latent whose picture is nearest to `pixels` wide."""
        return min(self.side, max(1, round(pixels / self.upsampling)))

    def cost(self, side: int) -> float:
        """Of a latent of this side, in full pictures."""
        return (side / self.side) ** 2

    def load(self) -> list[tuple[float, float]]:
        """Reads the weights, warms up and judges the result. Returns (cost, seconds) as measured."""
        self.compute.own_this_thread()
        with self._settings.as_settings_error("checkpoint", ModelError, SelfTestFailed):
            parts = ("post_quant_conv", "decoder")
            self._tokenizer: HybridTokenizer = self.checkpoint.load_tokenizer(
                self.compute.dtype, self.compute.device, parts
            )
            self.digest = self.checkpoint.digest_of("tokenizer")
            self._self_test.learn()
        jobs = [Job(self._known_latent(), side) for side in {self.side, self.latent_side(self.picture_side // 4)}]
        for job in jobs:
            self.run([job])
        return [(self.cost(job.side), self.compute.seconds(partial(self.run, [job]))) for job in jobs]

    def _known_latent(self) -> Array:
        shape = (self.channels, self.side, self.side)
        return np.random.default_rng(0).standard_normal(shape, np.float32)

    def _probe(self) -> dict[str, Array]:
        [found] = self.run([Job(self._known_latent(), self.side)])
        if isinstance(found, BaseException):
            raise found
        return {"the picture": found}

    @torch.inference_mode()
    def run(self, jobs: Sequence[Job]) -> list[Pixels | BaseException]:
        """Pixels (H, W, 3) per latent, NotFiniteError for one that gives none; all jobs have the same side."""
        latents = torch.from_numpy(np.stack([job.latent for job in jobs])).to(self.compute.device)
        if jobs[0].side < self.side:
            latents = downsample(latents, jobs[0].side)
        found = [_pixels(picture) for picture in self._tokenizer.decode(latents).cpu().numpy()]
        if any(isinstance(one, NotFiniteError) for one in found):
            self._self_test.repeat()
        return found


def _pixels(picture: Array) -> Pixels | BaseException:
    try:
        return to_pixels(picture)
    except NotFiniteError as error:
        return error
