"""The transformer with its slots: advances pictures by a scale. Knows no queue, no deadline and no wire."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.stages import DECODER, TEXT_ENCODER
from model.checkpoint import Checkpoint, bundled
from model.config import TransformerConfig
from model.device import Compute
from model.errors import ModelError
from model.generation import Conditioning, GenerationState, Generator, SamplingParams
from model.kv_cache import BRANCHES, KVCache
from model.noise import SeededNoise
from runtime.errors import InvalidRequest
from runtime.settings import SettingsError
from services.ar_generator.config import ArGeneratorSettings

Array = np.ndarray[Any, Any]
CPU_MAX_BATCHED_TOKENS, GPU_MAX_BATCHED_TOKENS = 128, 2048
PARTNERS = {stage.name: stage.part for stage in (TEXT_ENCODER, DECODER)}
"""By stage, the part of a checkpoint that the transformer was trained with."""


@dataclass(frozen=True)
class GenerationRequest:
    """All that a latent is a function of, besides the checkpoint."""

    context: Array
    """(T, D), float."""
    mask: Array
    """(T,), bool."""
    positions: Array
    """(T,), int64, -1 to T - 1."""
    seed: int
    params: SamplingParams
    preview_every: int = 0
    """Show the latent so far after every n-th scale; 0: only the final one."""
    result_only: bool = False
    """No progress events are sent."""

    def previews(self, scale: int) -> bool:
        """Whether the latent so far is wanted after this scale, counted from 0."""
        return self.preview_every > 0 and (scale + 1) % self.preview_every == 0


@dataclass(frozen=True)
class Step:
    """One scale of a batch."""

    scale: int
    latents: list[Array | BaseException | None]
    """Per request: its (Z, N, N), None where it is not needed, or the error that ends it."""
    started_ns: int
    seconds: float


@dataclass(frozen=True)
class RunPlan:
    """How far a batch may go before the scheduler chooses again."""

    last_scale: int
    latest_start: Sequence[float]
    """Per scale, the monotonic time in seconds after which it must not start: the batch could no longer finish in
    time."""
    stop: threading.Event
    """Set: stop at the next scale boundary."""
    on_step: Callable[[Step], object] = lambda step: None
    """Called on the device thread after each scale. Each wake-up of the event loop costs the engine a little time."""

    def continues(self, scale: int) -> bool:
        """Whether this scale may start now."""
        return scale <= self.last_scale and not self.stop.is_set() and time.monotonic() < self.latest_start[scale]


class GeneratorEngine:
    """Loaded by `load`; everything but the attributes belongs on the same thread."""

    def __init__(self, settings: ArGeneratorSettings) -> None:
        self._settings = settings
        with settings.as_settings_error("device", ModelError):
            self.compute = Compute.of(settings.device, settings.dtype, settings.torch_threads)
        with settings.as_settings_error("checkpoint", ModelError):
            self.checkpoint = Checkpoint.open(settings.checkpoint or bundled())
            self.config: TransformerConfig = self.checkpoint.transformer_config
            self.channels = self.checkpoint.tokenizer_config.z_channels
            self.defaults: SamplingParams = self.checkpoint.sampling_defaults
        self.slot_bytes = KVCache.bytes_per_slot(self.config, self.compute.dtype)
        self.slots = settings.slots or self._slots_in(settings.kv_cache_bytes, settings.max_batch)
        on_gpu = self.compute.device.type == "cuda"
        tokens = settings.max_batched_tokens or (GPU_MAX_BATCHED_TOKENS if on_gpu else CPU_MAX_BATCHED_TOKENS)
        self.max_batch_per_scale = [
            min(self.slots, settings.max_batch, max(1, tokens // rows)) for rows in self._rows()
        ]
        """Per scale, how many pictures may share a batch."""
        self.digest = ""
        self.required_digests: dict[str, str] = {}
        """Digests of the parts that the transformer was made with, by the stage that has them; as far as the checkpoint
        holds them."""

    def _slots_in(self, memory: int, most: int) -> int:
        slots = min(most, memory // self.slot_bytes)
        if not slots:
            raise SettingsError(f"HART_KV_CACHE_BYTES={memory}: one picture takes {self.slot_bytes} bytes")
        return slots

    def _rows(self) -> list[int]:
        """Rows of tokens of one picture, by scale: the context of one branch, then both branches' maps."""
        return [self.config.context_token, *(BRANCHES * n * n for n in self.config.patch_nums[1:])]

    @property
    def scales(self) -> int:
        """S."""
        return self.config.scales

    def load(self) -> list[list[tuple[int, float]]]:
        """Reads the weights, makes the slots and warms up. Returns per scale (pictures, seconds) as measured."""
        self.compute.own_this_thread()
        with self._settings.as_settings_error("checkpoint", ModelError):
            transformer = self.checkpoint.load_transformer(self.compute.dtype, self.compute.device)
            self._generator = Generator(transformer, self.checkpoint.load_quantizer(self.compute.device), self.slots)
            self.digest = self.checkpoint.digest_of("llm")
            self.required_digests = {
                stage: self.checkpoint.digest_of(part) for stage, part in PARTNERS.items() if self._has(part)
            }
        widest = max(self.max_batch_per_scale)
        self._time(1)  # the first time is slow
        measured = [self._time(1), *([self._time(widest)] if widest > 1 else [])]
        return [list(of_scale) for of_scale in zip(*measured, strict=True)]

    def _has(self, part: str) -> bool:
        folder: Path = getattr(self.checkpoint, part)
        return folder.is_dir()

    def _time(self, pictures: int) -> list[tuple[int, float]]:
        """(Pictures, seconds) per scale of a batch, as wide as each scale allows."""
        mask = np.zeros(self.config.context_token, bool)
        mask[0] = True
        context = np.zeros((self.config.context_token, self.config.context_dim), np.float32)
        request = GenerationRequest(context, mask, mask.cumsum() - 1, 0, SamplingParams())
        states = [self.begin(request) for _ in range(pictures)]
        found = []
        for scale in range(self.scales):
            width = self.max_batch_per_scale[scale]
            seconds = [
                self.advance([(state, request) for state in states[at : at + width]]).seconds
                for at in range(0, pictures, width)
            ]
            found.append((min(width, pictures), seconds[0]))
        for state in states:
            self.release(state)
        return found

    def begin(self, request: GenerationRequest) -> GenerationState:
        """Takes a free slot."""
        conditioning = Conditioning(
            torch.from_numpy(request.context.astype(np.float32)),
            torch.from_numpy(request.mask.astype(np.bool_)),
            torch.from_numpy(request.positions.astype(np.int64)),
        )
        return self._generator.begin(conditioning, SeededNoise(request.seed, self.compute.device), request.params)

    def advance(self, pictures: Sequence[tuple[GenerationState, GenerationRequest]]) -> Step:
        """Draws the next scale of pictures that stand at the same one; an error is that picture's alone."""
        started_ns, started = time.time_ns(), time.perf_counter()
        scale = pictures[0][0].scale
        try:
            self._generator.advance([state for state, _ in pictures])
            latents = [self._shown(state, request) for state, request in pictures]
            self.compute.wait()
        except Exception as error:
            if self.compute.is_lost(error):
                raise
            latents = [error] if len(pictures) == 1 else self._each_alone(pictures, scale)
        return Step(scale, latents, started_ns, time.perf_counter() - started)

    def run(self, batch: Sequence[tuple[GenerationState, GenerationRequest]], plan: RunPlan) -> list[Step]:
        """Draws the batch's next scale, and further ones as the plan allows and none fails."""
        steps: list[Step] = []
        while True:
            step = self.advance(batch)
            steps.append(step)
            plan.on_step(step)
            failed = any(isinstance(latent, BaseException) for latent in step.latents)
            if failed or not plan.continues(step.scale + 1):
                return steps

    def _each_alone(
        self, pictures: Sequence[tuple[GenerationState, GenerationRequest]], scale: int
    ) -> list[Array | BaseException | None]:
        """After a batch failed at this scale. Nothing was lost: a state changes only when its scale is drawn, and its
        slot's keys are written again."""
        return [
            self._shown(state, request) if state.scale > scale else self.advance([(state, request)]).latents[0]
            for state, request in pictures
        ]

    def _shown(self, state: GenerationState, request: GenerationRequest) -> Array | BaseException | None:
        if state.scale < self.scales and not request.previews(state.scale - 1):
            return None
        latent: Array = state.latent.cpu().numpy()
        if not np.isfinite(latent).all():
            return InvalidRequest.field("context.data", "leads to a latent that is not finite")
        return latent

    def release(self, state: GenerationState) -> None:
        """Gives the slot back."""
        self._generator.release(state)
