"""Generation by scale: a state per picture, and one function that advances a batch of states by one scale.

Spec, section 3.

Whoever holds states decides which advance together: a loop draws one picture, a scheduler interleaves many.
Nothing here waits for the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from kernels.choose import kernel_runs
from kernels.sampling import Draw, sample
from model import noise as randomness
from model.errors import ModelError, SettingError
from model.kv_cache import BRANCHES, KVCache, Step
from model.layers import Rotary
from model.noise import Noise, SeededNoise
from model.quantizer import Quantizer
from model.sampling import draw_tokens, guide, keep_top_k, keep_top_p, soft_weights, temperature, top_k
from model.transformer import Pooled, Transformer

MAX_GUIDANCE = 20.0


@dataclass(frozen=True)
class SamplingParams:
    """What a caller may choose for a picture besides its prompt and seed."""

    guidance: float = 4.5
    """How strongly the prompt pulls, 0 to 20; it grows from 0 at the first scale to this at the last."""
    more_smooth: bool = True
    """Whether embeddings are soft mixtures of the codebook (the released default) or the drawn rows."""
    top_p: float = 0.0
    """Nucleus sampling's mass, 0 to 1; 0 is off."""

    def __post_init__(self) -> None:
        if not 0 <= self.guidance <= MAX_GUIDANCE:
            raise SettingError("guidance", f"{self.guidance}: expected 0 to {MAX_GUIDANCE:g}")
        if not 0 <= self.top_p <= 1:
            raise SettingError("top_p", f"{self.top_p}: expected 0 (off) to 1")


@dataclass(frozen=True)
class Conditioning:
    """Text conditioning of one or more prompts."""

    context: Tensor
    """(..., T, context_dim), float32."""
    mask: Tensor
    """(..., T), bool: which slots hold prompt tokens."""
    positions: Tensor
    """(..., T), int64: cumsum(mask) - 1."""

    def __getitem__(self, i: int) -> "Conditioning":
        return Conditioning(self.context[i], self.mask[i], self.positions[i])

    def to(self, device: torch.device) -> "Conditioning":
        """The same on a device."""
        return Conditioning(self.context.to(device), self.mask.to(device), self.positions.to(device))


@dataclass(frozen=True)
class Controls:
    """A picture's settings at one scale as tensors, for a graph that is to serve all settings."""

    guidance: Tensor
    """(1,): t of the scale."""
    more_smooth: Tensor
    """(1,), bool."""

    @classmethod
    def of(cls, settings: SamplingParams, ratio: float, device: torch.device) -> "Controls":
        """Filled on the device: a tensor made on the host would make the host wait."""
        guidance = torch.full((1,), settings.guidance * ratio, device=device)
        return cls(guidance, torch.full((1,), settings.more_smooth, device=device))


class Shortcut(Protocol):
    """Another way to advance, where it fits (model.graphs)."""

    def advance(self, k: int, states: "Sequence[State]") -> bool:
        """Advances states at scale k, or returns False and does nothing."""


@dataclass
class GenerationState:
    """A picture in flight. `scale` is the next one to be drawn; at S the latent is final."""

    slot: int
    settings: SamplingParams
    noise: Noise
    conditioning: Conditioning
    embedded: Tensor | None
    """The embedded context (T, C), until the first scale has read it."""
    pooled: Pooled
    """Of both branches: (2, C) and (2, 2C)."""
    last_positions: Tensor
    """(2,): the position of the last context slot, conditional and unconditional."""
    latent: Tensor
    """f̂ so far, (Z, N, N), float32."""
    next_map: Tensor | None = None
    """What scale `scale` reads, (Z, n, n); None before the first scale."""
    tokens: Tensor | None = None
    """The indices (n², ) drawn at the scale before."""
    scale: int = 0
    controls: Controls | None = None
    """What takes the place of `settings` in a graph."""


class Generator:
    """A transformer, the quantizer whose codes it predicts, and slots for pictures in flight. One thread uses it."""

    def __init__(self, transformer: Transformer, quantizer: Quantizer, slots: int = 1) -> None:
        if slots < 1:
            raise ModelError(f"slots = {slots}: expected at least 1")
        self.config = transformer.config
        self.transformer, self.quantizer = transformer, quantizer
        self.device = transformer.word_embed.weight.device
        self.kv_cache = KVCache(self.config, slots, self.device, transformer.dtype)
        self.free = list(range(slots))
        self.lanes: Shortcut | None = None
        self._prefill_unconditional()

    @property
    def scales(self) -> int:
        """S, the number of scales."""
        return self.config.scales

    def begin(self, conditioning: Conditioning, noise: Noise, settings: SamplingParams) -> GenerationState:
        """Takes a free slot for one prompt's conditioning, (T, context_dim). Raises ModelError if there is none."""
        wanted = (self.config.context_token, self.config.context_dim)
        if tuple(conditioning.context.shape) != wanted:
            raise ModelError(f"context: shape {tuple(conditioning.context.shape)}: expected {wanted}")
        for name in ("mask", "positions"):
            shape = tuple(getattr(conditioning, name).shape)
            if shape != wanted[:1]:
                raise ModelError(f"{name}: shape {shape}: expected {wanted[:1]}")
        if not self.free:
            raise ModelError(f"all {self.kv_cache.slots} slots are taken")
        state = self._begin(self.free[0], conditioning.to(self.device), noise, settings)
        self.free.pop(0)  # now that nothing can fail any more: a slot that nobody holds would be lost
        return state

    @torch.inference_mode()
    def _begin(self, slot: int, conditioning: Conditioning, noise: Noise, settings: SamplingParams) -> GenerationState:
        embedded = self.transformer.embed_context(conditioning.context[None])
        pooled = self.transformer.pool(embedded, conditioning.mask[None])
        side = self.config.side
        return GenerationState(
            slot=slot,
            settings=settings,
            noise=noise,
            conditioning=conditioning,
            embedded=embedded[0],
            pooled=_join(torch.cat, [pooled, self._unconditional]),
            last_positions=torch.stack([conditioning.positions[-1], torch.zeros_like(conditioning.positions[-1])]),
            latent=torch.zeros(self.quantizer.embedding.embedding_dim, side, side, device=self.device),
        )

    def release(self, state: GenerationState) -> None:
        """Gives the slot back; the state must not be advanced afterwards. Releasing twice is an error."""
        if state.slot in self.free:
            raise ModelError(f"slot {state.slot} is free already")
        self.free.append(state.slot)
        self.free.sort()

    @torch.inference_mode()
    def advance(self, states: Sequence[GenerationState]) -> None:
        """Draws the next scale of states that stand at the same one."""
        k = self._common_scale(states)
        if self.lanes is None or not self.lanes.advance(k, states):
            self.advance_eagerly(states)

    @torch.inference_mode()
    def advance_eagerly(self, states: Sequence[GenerationState]) -> Sequence[GenerationState]:
        """The same without graphs; returns the states. Nothing in it is chosen by `settings` where there are controls,
        but for top_p."""
        k = self._common_scale(states)
        last = k == self.scales - 1
        hidden = self.forward(states)
        controls = [state.controls or Controls.of(state.settings, self.ratio(k), self.device) for state in states]
        t = torch.cat([one.guidance for one in controls])
        tokens, embeddings = self._sample(states, self.logits(states, hidden), controls, k)
        if last:
            embeddings = embeddings + self._residual(states, hidden, tokens, t)
        latent = torch.stack([state.latent for state in states])
        latent = self.quantizer.accumulate(latent, k, self.quantizer.as_map(embeddings))
        maps = None if last else self.quantizer.next_map(latent, k)
        for i, state in enumerate(states):
            state.latent, state.tokens, state.scale, state.embedded = latent[i], tokens[i], k + 1, None
            state.next_map = None if maps is None else maps[i]
        return states

    @torch.inference_mode()
    def forward(self, states: Sequence[GenerationState]) -> Tensor:
        """The last block's output for the scale at which the states stand, (n, 2, L, C).

        Keeps the step's keys and values in the states' slots; running it again keeps the same ones.
        """
        k = self._common_scale(states)
        if k == 0:
            return self._forward_context(states)
        net = self.transformer
        x = net.embed_map(torch.stack([_present(state.next_map) for state in states]), k)
        x = x.repeat_interleave(BRANCHES, dim=0)  # rows: state by state, conditional then unconditional
        rows = [BRANCHES * state.slot + branch for state in states for branch in range(BRANCHES)]
        rotary = net.rotary_map(k, torch.cat([state.last_positions for state in states]))
        pooled = _join(torch.cat, [state.pooled for state in states]).block
        start = self.config.context_token + sum(n * n for n in self.config.patch_nums[1:k])
        x = self._blocks(x, pooled, rotary, Step(self.kv_cache, rows, start, last=k == self.scales - 1))
        return x.unflatten(0, (len(states), BRANCHES))

    def logits(self, states: Sequence[GenerationState], hidden: Tensor) -> Tensor:
        """Hidden (n, 2, L, C) to logits (n, 2, L, V) before guidance."""
        head = _join(torch.cat, [state.pooled for state in states]).head
        return self.transformer.logits(hidden.flatten(0, 1), head).unflatten(0, hidden.shape[:2])

    def _forward_context(self, states: Sequence[GenerationState]) -> Tensor:
        """The first step: the conditional rows read their context; the unconditional one was read at the start."""
        net = self.transformer
        x = torch.stack([_present(state.embedded) for state in states]) + net.level(0)
        rows = [BRANCHES * state.slot for state in states]
        rotary = net.rotary_context(torch.stack([state.conditioning.positions for state in states]))
        block = _join(torch.stack, [state.pooled for state in states]).block
        pooled = None if block is None else block[:, 0]
        x = self._blocks(x, pooled, rotary, Step(self.kv_cache, rows, 0))
        conditional = x[:, -1:]
        return torch.stack([conditional, self._unconditional_hidden.expand_as(conditional)], dim=1)

    @torch.inference_mode()
    def _prefill_unconditional(self) -> None:
        """Reads the empty context once, for everybody: its keys and values are the same in every slot for good."""
        net, config = self.transformer, self.config
        embedded = net.embed_context(torch.zeros(1, config.context_token, config.context_dim, device=self.device))
        mask = torch.zeros(1, config.context_token, dtype=torch.bool, device=self.device)
        mask[:, 0] = True
        self._unconditional = net.pool(embedded, mask)
        rotary = net.rotary_context(torch.zeros_like(mask, dtype=torch.int64))
        x = self._blocks(embedded + net.level(0), self._unconditional.block, rotary, Step(self.kv_cache, [1], 0))
        self._unconditional_hidden = x[:, -1:]
        context = slice(0, config.context_token)
        for kept in (self.kv_cache.keys, self.kv_cache.values):
            kept[:, 3::BRANCHES, :, context] = kept[:, 1:2, :, context]

    def _blocks(self, x: Tensor, pooled: Tensor | None, rotary: Rotary, step: Step) -> Tensor:
        rotary = rotary.to(x.dtype)
        for layer, block in enumerate(self.transformer.blocks):
            x = block(x, pooled, rotary, replace(step, layer=layer))
        return x

    def _sample(
        self, states: Sequence[GenerationState], logits: Tensor, controls: list[Controls], k: int
    ) -> tuple[Tensor, Tensor]:
        """Indices (n, L) and embeddings (n, L, Z) of logits (n, 2, L, V); one kernel where one can do it."""
        ratio, t = self.ratio(k), torch.cat([one.guidance for one in controls])
        keys = [state.noise.key for state in states if isinstance(state.noise, SeededNoise)]
        top_p = any(state.settings.top_p > 0 for state in states)
        if top_p or len(keys) < len(states) or not kernel_runs(logits):
            return self._draw(states, self._filter(states, guide(logits, t), k), k, ratio)
        more_smooth = torch.cat([one.more_smooth for one in controls])
        how = Draw(k, top_k(k), 1 + ratio, temperature(ratio))
        return sample(logits, t, torch.stack(keys), more_smooth, self.quantizer.embedding.weight, how)

    def ratio(self, k: int) -> float:
        """How far the drawing has come at scale k, 0 to 1: what guidance and temperature go by."""
        # The last scale is drawn with the guidance and temperature of the one before: the weights were trained so.
        return min(k, self.scales - 2) / (self.scales - 1)

    def _filter(self, states: Sequence[GenerationState], logits: Tensor, k: int) -> Tensor:
        logits = keep_top_k(logits, k)
        if any(state.settings.top_p > 0 for state in states):
            logits = keep_top_p(logits, self._vector([state.settings.top_p for state in states]))
        return logits

    def _draw(self, states: Sequence[GenerationState], logits: Tensor, k: int, ratio: float) -> tuple[Tensor, Tensor]:
        """Indices (n, L) and embeddings (n, L, Z), each state in its own mode."""
        sources = [state.noise for state in states]
        shape = (logits.shape[1], logits.shape[2])
        tokens = draw_tokens(logits, randomness.draw(sources, randomness.TOKEN_DRAW, k, 0, shape))
        embeddings = self.quantizer.embedding(tokens)
        if all(state.controls for state in states):  # no branch by a setting: both modes, and a mask
            gumbel = randomness.draw(sources, randomness.GUMBEL, k, 0, shape)
            soft = soft_weights(logits, gumbel, ratio) @ self.quantizer.embedding.weight
            wanted = torch.cat([state.controls.more_smooth for state in states if state.controls])
            return tokens, torch.where(wanted[:, None, None], soft, embeddings)
        more_smooth = [i for i, state in enumerate(states) if state.settings.more_smooth]
        if more_smooth:
            gumbel = randomness.draw([sources[i] for i in more_smooth], randomness.GUMBEL, k, 0, shape)
            chosen = logits if len(more_smooth) == len(states) else torch.stack([logits[i] for i in more_smooth])
            soft = soft_weights(chosen, gumbel, ratio) @ self.quantizer.embedding.weight
            for i, mixture in zip(more_smooth, soft, strict=True):
                embeddings[i] = mixture
        return tokens, embeddings

    def _residual(self, states: Sequence[GenerationState], hidden: Tensor, tokens: Tensor, t: Tensor) -> Tensor:
        """Residual tokens (n, L, Z) of the last scale."""
        sources, k = [state.noise for state in states], self.scales - 1
        codes = self.quantizer.embedding(tokens)
        shape = (codes.shape[1], codes.shape[2])
        condition = self.transformer.diffusion_condition(hidden, codes[:, None])
        return self.transformer.diffloss.sample(
            condition,
            t,
            randomness.draw(sources, randomness.DIFFUSION_START, k, 0, shape),
            randomness.draw_steps(sources, randomness.DIFFUSION_STEP, k, self.config.diffusion_steps - 1, shape),
        )

    def _vector(self, values: list[float]) -> Tensor:
        return torch.cat([torch.full((1,), value, device=self.device) for value in values])

    def _common_scale(self, states: Sequence[GenerationState]) -> int:
        scales = {state.scale for state in states}
        if len(scales) != 1:
            raise ModelError(f"states at scales {sorted(scales)}: only states at the same scale advance together")
        (k,) = scales
        if k >= self.scales:
            raise ModelError(f"scale {k}: the picture is finished; it has {self.scales} scales")
        return k


def _join(how: Callable[[list[Tensor]], Tensor], parts: Sequence[Pooled]) -> Pooled:
    blocks = [part.block for part in parts if part.block is not None]
    return Pooled(how(blocks) if blocks else None, how([part.head for part in parts]))


def _present(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ModelError("the state was not advanced from its first scale on")
    return tensor
