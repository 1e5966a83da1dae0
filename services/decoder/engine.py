"""The decoder's engine: it decodes batches of latents of one size to pixels. It imports no messages or file formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import engines
from model.capture import Replay
from model.checkpoint import Checkpoint, bundled
from model.device import Compute
from model.errors import ModelError, NotFiniteError
from model.pixels import Pixels, quantize, to_pixels
from model.quantizer import downsample
from model.tokenizer import HybridTokenizer
from runtime.work.self_test import SelfTest, SelfTestFailed
from services.decoder.config import DecoderSettings

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Job:
    """A latent and the size at which to decode it."""

    latent: Array
    """(Z, N, N), float32."""
    side: int
    """The side n <= N to which the latent is area-downsampled before decoding; N: no downsampling."""


class DecoderEngine:
    """The model behind the stage. Call `load` first; call `load` and `run` on the device thread."""

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings
        with settings.as_settings_error("device", ModelError):
            self.compute = Compute.of(settings.device, settings.dtype, settings.torch_threads)
        with settings.as_settings_error("engine", ModelError):
            self.engine = engines.choose(settings.engine, self.compute)
        with settings.as_settings_error("checkpoint", ModelError):
            self.checkpoint = Checkpoint.open(settings.checkpoint or bundled())
            config = self.checkpoint.tokenizer_config
        self.scales, self.channels = config.v_patch_nums, config.z_channels
        self.side, self.upsampling = config.side, config.downsampling
        self.digest = ""
        self._replay: Replay | None = None
        shape = (self.image_side, self.image_side, 3)
        self._self_test = SelfTest(self._probe, {"the image": shape}, ("the image",))

    @property
    def image_side(self) -> int:
        """Side of a full-size image in pixels."""
        return self.side * self.upsampling

    def latent_side(self, pixels: int) -> int:
        """The latent side whose image width is nearest to `pixels`."""
        return min(self.side, max(1, round(pixels / self.upsampling)))

    def cost(self, side: int) -> float:
        """The cost of a latent of this side; 1 is a full-size image."""
        return (side / self.side) ** 2

    def load(self) -> list[tuple[float, float]]:
        """Load the weights, run the self-test and warm up. Returns measured (cost, seconds) pairs."""
        self.compute.own_this_thread()
        with self._settings.as_settings_error("checkpoint", ModelError, SelfTestFailed):
            parts = ("post_quant_conv", "decoder")
            self._tokenizer: HybridTokenizer = self.checkpoint.load_tokenizer(
                self.compute.dtype, self.compute.device, parts
            )
            engines.speed_up_decoder(self._tokenizer, self.engine, self.compute)
            self.digest = self.checkpoint.digest_of("tokenizer")
            if self._settings.graphs and self.compute.device.type == "cuda":
                self._replay = self._captured()
            self._self_test.learn()
        jobs = [Job(self._known_latent(), side) for side in {self.side, self.latent_side(self.image_side // 4)}]
        for job in jobs:
            self.run([job])
        return [(self.cost(job.side), self.compute.seconds(partial(self.run, [job]))) for job in jobs]

    @torch.inference_mode()
    def _captured(self) -> Replay:
        return Replay(self._decode, torch.from_numpy(self._known_latent()[None]).to(self.compute.device))

    def _decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        return quantize(self._tokenizer.decode(latents))

    def _known_latent(self) -> Array:
        shape = (self.channels, self.side, self.side)
        return np.random.default_rng(0).standard_normal(shape, np.float32)

    def _probe(self) -> dict[str, Array]:
        [found] = self.run([Job(self._known_latent(), self.side)])
        if isinstance(found, BaseException):
            raise found
        return {"the image": found}

    @torch.inference_mode()
    def run(self, jobs: Sequence[Job]) -> list[Pixels | BaseException]:
        """Pixels (H, W, 3) per latent, or NotFiniteError for a latent whose image is not finite. All jobs have one
        side."""
        latents = torch.from_numpy(np.stack([job.latent for job in jobs])).to(self.compute.device)
        if jobs[0].side < self.side:
            latents = downsample(latents, jobs[0].side)
        alone = len(jobs) == 1 and jobs[0].side == self.side
        decode = self._replay if alone and self._replay else self._decode
        found: list[Pixels | BaseException] = [*to_pixels(*decode(latents))]
        if any(isinstance(one, NotFiniteError) for one in found):
            self._self_test.repeat()
        return found
