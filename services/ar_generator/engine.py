"""The generator's engine: the transformer and its slots. It advances batches of images by one scale."""

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
from model import engines, graphs
from model.checkpoint import Checkpoint, bundled
from model.config import TransformerConfig
from model.device import Compute
from model.errors import ModelError, NotFiniteError
from model.generation import Conditioning, GenerationState, Generator
from model.kv_cache import BRANCHES, KVCache
from model.noise import SeededNoise
from model.params import SamplingParams
from runtime.settings import SettingsError
from runtime.work.self_test import SelfTest, SelfTestFailed
from services.ar_generator.config import ArGeneratorSettings

Array = np.ndarray[Any, Any]
CPU_MAX_BATCHED_TOKENS, GPU_MAX_BATCHED_TOKENS = 128, 2048
MAX_GRAPH_TOKENS = 3000
"""Rows of tokens above which an H100 is still busy when the next kernel is launched (docs/performance.md)."""
PARTNERS = {stage.name: stage.part for stage in (TEXT_ENCODER, DECODER)}
"""Maps a stage to the checkpoint part that the transformer was trained with."""


@dataclass(frozen=True)
class GenerationRequest:
    """All inputs of a latent besides the checkpoint."""

    context: Array
    """(T, D), float."""
    mask: Array
    """(T,), bool."""
    positions: Array
    """(T,), int64, -1 to T - 1."""
    seed: int
    params: SamplingParams
    preview_every: int = 0
    """Scales between previews of the latent; 0: no previews."""
    result_only: bool = False
    """No progress events are sent."""

    def previews(self, scale: int) -> bool:
        """True if a preview follows this scale (counted from 0)."""
        return self.preview_every > 0 and (scale + 1) % self.preview_every == 0


@dataclass(frozen=True)
class Step:
    """One finished scale of a batch."""

    scale: int
    latents: list[Array | BaseException | None]
    """Per request: the latent (Z, N, N), None if it is not needed, or the error that ends the request."""
    started_ns: int
    seconds: float


@dataclass(frozen=True)
class RunPlan:
    """The scales that a batch may run before the scheduler chooses again."""

    last_scale: int
    latest_start: Sequence[float]
    """Per scale, the latest start (monotonic seconds) at which the batch can meet its deadline."""
    stop: threading.Event
    """If set, the batch stops at the next scale boundary."""
    on_step: Callable[[Step], object] = lambda step: None
    """Called on the device thread after each scale. Each wake-up of the event loop delays the engine slightly."""

    def continues(self, scale: int) -> bool:
        """True if this scale may start now."""
        return scale <= self.last_scale and not self.stop.is_set() and time.monotonic() < self.latest_start[scale]


class GeneratorEngine:
    """The model behind the stage. Call `load` first; call all methods on the device thread."""

    def __init__(self, settings: ArGeneratorSettings) -> None:
        self._settings = settings
        with settings.as_settings_error("device", ModelError):
            self.compute = Compute.of(settings.device, settings.dtype, settings.torch_threads)
        with settings.as_settings_error("engine", ModelError):
            self.engine = engines.choose(settings.engine, self.compute)
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
        """Per scale, the max number of images in a batch."""
        shape = (self.channels, self.config.side, self.config.side)
        shapes = {"the latent after the first scale": shape, "the latent": shape}
        # Rounding may change the tokens that later scales sample. Only the first scale is repeatable.
        self._self_test = SelfTest(self._probe, shapes, ("the latent after the first scale",))
        self._measured: list[tuple[int, float]] = []
        """(Images, seconds) per scale of the last self-test."""
        self.digest = ""
        self.required_digests: dict[str, str] = {}
        """Maps a stage to the digest of the part that the transformer was trained with, for parts in the checkpoint."""

    def _slots_in(self, memory: int, max_slots: int) -> int:
        slots = min(max_slots, memory // self.slot_bytes)
        if not slots:
            raise SettingsError(f"HART_KV_CACHE_BYTES={memory}: one image takes {self.slot_bytes} bytes")
        return slots

    def _rows(self) -> list[int]:
        """Rows of tokens of one image, by scale: the context of one branch, then the token maps of both branches."""
        return [self.config.context_token, *(BRANCHES * n * n for n in self.config.patch_nums[1:])]

    @property
    def scales(self) -> int:
        """S."""
        return self.config.scales

    def load(self) -> list[list[tuple[int, float]]]:
        """Load the weights, allocate the slots, run the self-test and warm up. Returns measured (images, seconds) pairs
        per scale."""
        self.compute.own_this_thread()
        with self._settings.as_settings_error("checkpoint", ModelError, SelfTestFailed):
            transformer = self.checkpoint.load_transformer(self.compute.dtype, self.compute.device)
            self._generator = Generator(transformer, self.checkpoint.load_quantizer(self.compute.device), self.slots)
            engines.speed_up_generator(self._generator, self.engine, self.compute)
            self.digest = self.checkpoint.digest_of("llm")
            self.required_digests = {
                stage: self.checkpoint.digest_of(part) for stage, part in PARTNERS.items() if self._has(part)
            }
            if self._settings.graphs and self.compute.device.type == "cuda":
                self._capture_graphs()
            self._self_test.learn()  # runs twice: the first run is slow
        widest = max(self.max_batch_per_scale)
        measured = [self._measured, *([self._time(widest)] if widest > 1 else [])]
        return [list(of_scale) for of_scale in zip(*measured, strict=True)]

    def _capture_graphs(self) -> None:
        """Capture the graphs of every run of slots now: a capture takes longer than the scale that it is made of."""
        buckets = [count for count in graphs.BUCKETS if count <= max(self.max_batch_per_scale)]
        lanes = graphs.attach(self._generator, buckets, MAX_GRAPH_TOKENS)
        states = [self.begin(self._known_request()) for _ in range(self.slots)]
        for _ in range(self.scales):
            lanes.capture_all(states)
            for state in states:
                self._generator.advance([state])
        for state in states:
            self.release(state)

    def _has(self, part: str) -> bool:
        folder: Path = getattr(self.checkpoint, part)
        return folder.is_dir()

    def _probe(self) -> dict[str, Array]:
        found: dict[str, Array] = {}
        self._measured = self._time(1, found)
        return found

    def _time(self, images: int, found: dict[str, Array] | None = None) -> list[tuple[int, float]]:
        """Time batches of the known image: (images, seconds) per scale, with each scale's max batch. Raises an image's
        error. Adds the first image's latents to `found`."""
        request = self._known_request()
        states = [self.begin(request) for _ in range(images)]
        measured = []
        try:
            for scale in range(self.scales):
                width = self.max_batch_per_scale[scale]
                steps = [
                    self.advance([(state, request) for state in states[at : at + width]])
                    for at in range(0, images, width)
                ]
                measured.append((min(width, images), steps[0].seconds))
                for latent in (latent for step in steps for latent in step.latents):
                    if isinstance(latent, BaseException):
                        raise latent
                if found is not None and scale in (0, self.scales - 1):
                    name = "the latent" if scale else "the latent after the first scale"
                    found[name] = states[0].latent.cpu().numpy()
        finally:
            for state in states:
                self.release(state)
        return measured

    def _known_request(self) -> GenerationRequest:
        mask = np.zeros(self.config.context_token, bool)
        mask[0] = True
        shape = (self.config.context_token, self.config.context_dim)
        context = np.random.default_rng(0).standard_normal(shape, np.float32)
        return GenerationRequest(context, mask, mask.cumsum() - 1, 0, self.defaults)

    def begin(self, request: GenerationRequest) -> GenerationState:
        """Take a free slot for the request."""
        conditioning = Conditioning(
            torch.from_numpy(request.context.astype(np.float32)),
            torch.from_numpy(request.mask.astype(np.bool_)),
            torch.from_numpy(request.positions.astype(np.int64)),
        )
        return self._generator.begin(conditioning, SeededNoise(request.seed, self.compute.device), request.params)

    def advance(self, images: Sequence[tuple[GenerationState, GenerationRequest]]) -> Step:
        """Generate the next scale of images at the same scale. An error fails only its image. Raises SelfTestFailed if
        a latent is not finite because the model is broken."""
        started_ns, started = time.time_ns(), time.perf_counter()
        scale = images[0][0].scale
        try:
            self._generator.advance([state for state, _ in images])
            latents = [self._shown(state, request) for state, request in images]
            self.compute.wait()
        except Exception as error:
            if self.compute.is_lost(error):
                raise
            latents = [error] if len(images) == 1 else self._each_alone(images, scale)
        for (state, _), latent in zip(images, latents, strict=True):
            if isinstance(latent, NotFiniteError):
                self._repeat_self_test(state)
        return Step(scale, latents, started_ns, time.perf_counter() - started)

    def run(self, batch: Sequence[tuple[GenerationState, GenerationRequest]], plan: RunPlan) -> list[Step]:
        """Generate the batch's next scale, and further ones while the plan allows it and no image fails."""
        steps: list[Step] = []
        while True:
            step = self.advance(batch)
            steps.append(step)
            plan.on_step(step)
            failed = any(isinstance(latent, BaseException) for latent in step.latents)
            if failed or not plan.continues(step.scale + 1):
                return steps

    def _each_alone(
        self, images: Sequence[tuple[GenerationState, GenerationRequest]], scale: int
    ) -> list[Array | BaseException | None]:
        """Retry each image alone after its batch failed at this scale. This is safe: a state changes only at the end of
        a scale, and the slot's keys are written again."""
        return [
            self._shown(state, request) if state.scale > scale else self.advance([(state, request)]).latents[0]
            for state, request in images
        ]

    def _shown(self, state: GenerationState, request: GenerationRequest) -> Array | BaseException | None:
        if state.scale < self.scales and not request.previews(state.scale - 1):
            return None
        latent: Array = state.latent.cpu().numpy()
        return latent if np.isfinite(latent).all() else NotFiniteError("the latent")

    def _repeat_self_test(self, broken: GenerationState) -> None:
        """Repeat the self-test in the slot of the failed image: there may be no free slot."""
        self._generator.release(broken)
        try:
            self._self_test.repeat()
        finally:
            self._generator.free.remove(broken.slot)  # its owner releases it

    def release(self, state: GenerationState) -> None:
        """Release the request's slot."""
        self._generator.release(state)
