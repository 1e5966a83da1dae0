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
from model.errors import ModelError
from model.image_file import Pixels, to_pixels
from model.quantizer import downsample
from model.tokenizer import HybridTokenizer
from runtime.errors import InvalidRequest
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
        """Reads the weights and warms up. Returns (cost, seconds) as measured."""
        self.compute.own_this_thread()
        with self._settings.as_settings_error("checkpoint", ModelError):
            parts = ("post_quant_conv", "decoder")
            self._tokenizer: HybridTokenizer = self.checkpoint.load_tokenizer(
                self.compute.dtype, self.compute.device, parts
            )
            self.digest = self.checkpoint.digest_of("tokenizer")
        latent = np.zeros((self.channels, self.side, self.side), np.float32)
        jobs = [Job(latent, side) for side in {self.side, self.latent_side(self.picture_side // 4)}]
        for job in jobs:
            self.run([job])
        return [(self.cost(job.side), self.compute.seconds(partial(self.run, [job]))) for job in jobs]

    @torch.inference_mode()
    def run(self, jobs: Sequence[Job]) -> list[Pixels | BaseException]:
        """Pixels (H, W, 3) per latent; all jobs have the same side."""
        latents = torch.from_numpy(np.stack([job.latent for job in jobs])).to(self.compute.device)
        if jobs[0].side < self.side:
            latents = downsample(latents, jobs[0].side)
        pictures = self._tokenizer.decode(latents)
        finite = pictures.isfinite().flatten(1).all(1).tolist()
        refusal = InvalidRequest.field("latent.data", "leads to colours that are not finite")
        return [
            pixels if good else refusal
            for pixels, good in zip(to_pixels(pictures.nan_to_num().cpu().numpy()), finite, strict=True)
        ]
