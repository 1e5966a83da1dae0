"""Generation by scale: one state per image, and a function that advances a batch of states by one scale.

docs/spec.md, section 3.

The caller chooses which states advance together: a loop generates one image, a scheduler interleaves many.
No function here synchronises with the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from kernels.choose import kernel_runs
from kernels.sampling import Draw, sample, spoil
from model import noise as randomness
from model.errors import ModelError
from model.kv_cache import BRANCHES, KVCache, Step
from model.layers import Rotary
from model.noise import Noise, Scales, SeededNoise
from model.params import Controls, SamplingParams
from model.quantizer import Quantizer
from model.sampling import draw_tokens, guide, keep_top_k, keep_top_p, soft_weights, temperature, top_k
from model.transformer import Pooled, Transformer


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
        """The tensors on `device`."""
        return Conditioning(self.context.to(device), self.mask.to(device), self.positions.to(device))


class Shortcut(Protocol):
    """Another way to advance, where it fits (model.graphs)."""

    def advance(self, k: int, states: "Sequence[GenerationState]") -> bool:
        """Advances states at scale k, or returns False and does nothing."""


@dataclass
class GenerationState:
    """An image in flight. `scale` is the next scale to generate; at S the latent is final."""

    slot: int
    params: SamplingParams
    noise: Noise
    conditioning: Conditioning
    embedded: Tensor | None
    """The embedded context (T, C); None after the first scale."""
    pooled: Pooled
    """Both branches: (2, C) and (2, 2C)."""
    last_positions: Tensor
    """(2,): the position of the last context slot, conditional and unconditional."""
    latent: Tensor
    """f̂ so far, (Z, N, N), float32."""
    next_map: Tensor | None = None
    """The input of scale `scale`, (Z, n, n); None before the first scale and after the last."""
    tokens: Tensor | None = None
    """The indices (n²,) sampled at the previous scale."""
    scale: int = 0
    controls: Controls | None = None
    """Replaces `params` in a graph."""


class Generator:
    """A transformer, the quantizer whose codes it predicts, and slots for images in flight. Not thread-safe."""

    def __init__(self, transformer: Transformer, quantizer: Quantizer, slots: int = 1) -> None:
        if slots < 1:
            raise ModelError(f"slots = {slots}: expected 1 or more")
        self.config = transformer.config
        self.transformer, self.quantizer = transformer, quantizer
        if transformer.word_embed.weight.is_cuda:
            transformer.join()
        self.device = transformer.word_embed.weight.device
        self.kv_cache = KVCache(self.config, slots, self.device, transformer.dtype)
        self.free = list(range(slots))
        self.lanes: Shortcut | None = None
        self.noise_scales = Scales(self.config.patch_nums, quantizer.embedding.num_embeddings)
        self._prefill_unconditional()

    @property
    def scales(self) -> int:
        """S, the number of scales."""
        return self.config.scales

    def begin(self, conditioning: Conditioning, noise: Noise, params: SamplingParams) -> GenerationState:
        """Takes a free slot for one prompt's conditioning, (T, context_dim).

        Raises ModelError for a wrong shape, or if no slot is free.
        """
        expected = (self.config.context_token, self.config.context_dim)
        if tuple(conditioning.context.shape) != expected:
            raise ModelError(f"context: shape {tuple(conditioning.context.shape)}: expected {expected}")
        for name in ("mask", "positions"):
            shape = tuple(getattr(conditioning, name).shape)
            if shape != expected[:1]:
                raise ModelError(f"{name}: shape {shape}: expected {expected[:1]}")
        if not self.free:
            raise ModelError(f"all {self.kv_cache.slots} slots are in use")
        state = self._begin(self.free[0], conditioning.to(self.device), noise, params)
        self.free.pop(0)  # last, so that an error above does not leak the slot
        return state

    @torch.inference_mode()
    def _begin(self, slot: int, conditioning: Conditioning, noise: Noise, params: SamplingParams) -> GenerationState:
        embedded = self.transformer.embed_context(conditioning.context[None])
        pooled = self.transformer.pool(embedded, conditioning.mask[None])
        side = self.config.side
        return GenerationState(
            slot=slot,
            params=params,
            noise=noise,
            conditioning=conditioning,
            embedded=embedded[0],
            pooled=_join(torch.cat, [pooled, self._unconditional]),
            last_positions=torch.stack([conditioning.positions[-1], torch.zeros_like(conditioning.positions[-1])]),
            latent=torch.zeros(self.quantizer.embedding.embedding_dim, side, side, device=self.device),
        )

    def release(self, state: GenerationState) -> None:
        """Frees the slot. The state must not be advanced afterwards. Raises ModelError on a second release."""
        if state.slot in self.free:
            raise ModelError(f"slot {state.slot} is already free")
        self.free.append(state.slot)
        self.free.sort()

    @torch.inference_mode()
    def advance(self, states: Sequence[GenerationState]) -> None:
        """Generates the next scale of states, which must all be at the same scale. Raises ModelError otherwise."""
        k = self._common_scale(states)
        for group in by_guidance(states):
            if self.lanes is None or not self.lanes.advance(k, group):
                self.advance_eagerly(group)

    @torch.inference_mode()
    def advance_eagerly(self, states: Sequence[GenerationState]) -> Sequence[GenerationState]:
        """The same without graphs; returns the states. Nothing in it is chosen by `params` where there are controls,
        but for top_p."""
        k = self._common_scale(states)
        last = k == self.scales - 1
        hidden = self.forward(states)
        controls = [state.controls or Controls.of(state.params, self.ratio(k), self.device) for state in states]
        logits = self.logits(states, hidden)
        tokens, embeddings = self._sample(states, logits, controls, k)
        if last:
            embeddings = embeddings + self._residual(states, hidden, tokens, controls)
        latent = torch.stack([state.latent for state in states])
        latent = self.quantizer.accumulate(latent, k, self.quantizer.as_map(embeddings))
        maps = None if last else self.quantizer.next_map(latent, k)
        for i, state in enumerate(states):
            state.latent, state.tokens, state.scale, state.embedded = latent[i], tokens[i], k + 1, None
            state.next_map = None if maps is None else maps[i]
        return states

    @torch.inference_mode()
    def forward(self, states: Sequence[GenerationState]) -> Tensor:
        """The last block's output for the states' current scale, (n, 2, L, C); (n, 1, L, C) without guidance.

        Writes the step's keys and values to the states' slots. Idempotent.
        """
        k = self._common_scale(states)
        if k == 0:
            return self._forward_context(states)
        net = self.transformer
        x = net.embed_map(torch.stack([_present(state.next_map) for state in states]), k)
        count = branches(states)
        x = x.repeat_interleave(count, dim=0)  # rows: state by state, conditional then unconditional
        rows = [BRANCHES * state.slot + branch for state in states for branch in range(count)]
        rotary = net.rotary_map(k, torch.cat([state.last_positions[:count] for state in states]))
        pooled = _join(torch.cat, [state.pooled[:count] for state in states]).block
        start = self.config.context_token + sum(n * n for n in self.config.patch_nums[1:k])
        step = Step(self.kv_cache, rows, start, branches=count, last=k == self.scales - 1)
        return self._blocks(x, pooled, rotary, step).unflatten(0, (len(states), count))

    def logits(self, states: Sequence[GenerationState], hidden: Tensor) -> Tensor:
        """Hidden (n, branches, L, C) to logits (n, branches, L, V) before guidance."""
        head = _join(torch.cat, [state.pooled[: hidden.shape[1]] for state in states]).head
        return self.transformer.logits(hidden.flatten(0, 1), head).unflatten(0, hidden.shape[:2])

    def _forward_context(self, states: Sequence[GenerationState]) -> Tensor:
        """The first step: prefills the conditional rows; the unconditional row was prefilled by the constructor."""
        net = self.transformer
        x = torch.stack([_present(state.embedded) for state in states]) + net.level(0)
        rows = [BRANCHES * state.slot for state in states]
        rotary = net.rotary_context(torch.stack([state.conditioning.positions for state in states]))
        block = _join(torch.stack, [state.pooled for state in states]).block
        pooled = None if block is None else block[:, 0]
        x = self._blocks(x, pooled, rotary, Step(self.kv_cache, rows, 0))
        conditional = x[:, -1:]
        if branches(states) == 1:
            return conditional[:, None]
        return torch.stack([conditional, self.unconditional_hidden.expand_as(conditional)], dim=1)

    @torch.inference_mode()
    def _prefill_unconditional(self) -> None:
        """Prefills the empty context once: its keys and values are the same in every slot and are never overwritten."""
        net, config = self.transformer, self.config
        embedded = net.embed_context(torch.zeros(1, config.context_token, config.context_dim, device=self.device))
        mask = torch.zeros(1, config.context_token, dtype=torch.bool, device=self.device)
        mask[:, 0] = True
        self._unconditional = net.pool(embedded, mask)
        rotary = net.rotary_context(torch.zeros_like(mask, dtype=torch.int64))
        x = self._blocks(embedded + net.level(0), self._unconditional.block, rotary, Step(self.kv_cache, [1], 0))
        self.unconditional_hidden = x[:, -1:]
        context = slice(0, config.context_token)
        for kept in (self.kv_cache.keys, self.kv_cache.values):
            kept[:, 3::BRANCHES, :, context] = kept[:, 1:2, :, context]

    def _blocks(self, x: Tensor, pooled: Tensor | None, rotary: Rotary, step: Step) -> Tensor:
        return self.transformer.through_blocks(x, pooled, rotary.to(x.dtype), lambda layer: replace(step, layer=layer))

    def _sample(
        self, states: Sequence[GenerationState], logits: Tensor, controls: list[Controls], k: int
    ) -> tuple[Tensor, Tensor]:
        """Samples indices (n, L) and embeddings (n, L, Z) from logits (n, branches, L, V); fused if possible."""
        ratio, t = self.ratio(k), torch.cat([one.guidance for one in controls])
        keys = [state.noise.key for state in states if isinstance(state.noise, SeededNoise)]
        top_p = any(state.params.top_p > 0 for state in states)
        if top_p or len(keys) < len(states) or not kernel_runs(logits):
            tokens, embeddings = self._draw(states, self._filter(states, guide(logits, t), k), k, ratio)
            return tokens, spoil(embeddings, logits)
        more_smooth = torch.cat([one.more_smooth for one in controls])
        how = Draw(k, top_k(k), 1 + ratio, temperature(ratio))
        return sample(logits, t, torch.stack(keys), more_smooth, self.quantizer.embedding.weight, how)

    def ratio(self, k: int) -> float:
        """Progress at scale k, 0 to 1: guidance and temperature depend on it."""
        # The last scale uses the guidance and temperature of the scale before it, as the released code does.
        return min(k, self.scales - 2) / (self.scales - 1)

    def _filter(self, states: Sequence[GenerationState], logits: Tensor, k: int) -> Tensor:
        logits = keep_top_k(logits, k)
        if any(state.params.top_p > 0 for state in states):
            logits = keep_top_p(logits, self._vector([state.params.top_p for state in states]))
        return logits

    def _draw(self, states: Sequence[GenerationState], logits: Tensor, k: int, ratio: float) -> tuple[Tensor, Tensor]:
        """Samples indices (n, L) and embeddings (n, L, Z), hard or soft by each state's `more_smooth`."""
        sources = [state.noise for state in states]
        more_smooth = [i for i, state in enumerate(states) if state.params.more_smooth]
        fixed = all(state.controls for state in states)
        noise = randomness.draw_scale(sources, k, self.noise_scales, bool(more_smooth) or fixed)
        tokens = draw_tokens(logits, noise[0])
        embeddings = self.quantizer.embedding(tokens)
        if fixed:  # no branch by a parameter: both modes, and a mask
            soft = soft_weights(logits, noise[1], ratio) @ self.quantizer.embedding.weight
            smooth = torch.cat([state.controls.more_smooth for state in states if state.controls])
            return tokens, torch.where(smooth[:, None, None], soft, embeddings)
        if more_smooth:
            every = len(more_smooth) == len(states)
            chosen, gumbel = (
                one if every else torch.stack([one[i] for i in more_smooth]) for one in (logits, noise[1])
            )
            soft = soft_weights(chosen, gumbel, ratio) @ self.quantizer.embedding.weight
            for i, mixture in zip(more_smooth, soft, strict=True):
                embeddings[i] = mixture
        return tokens, embeddings

    def _residual(
        self, states: Sequence[GenerationState], hidden: Tensor, tokens: Tensor, controls: list[Controls]
    ) -> Tensor:
        """Samples the residual tokens (n, L, Z) of the last scale."""
        sources, k = [state.noise for state in states], self.scales - 1
        codes = self.quantizer.embedding(tokens)
        shape = (codes.shape[1], codes.shape[2])
        condition = self.transformer.diffusion_condition(hidden, codes[:, None])
        steps = self.config.diffusion_steps - 1 if noisy(states) else 0
        start, fresh = randomness.draw_diffusion(sources, k, steps, shape)
        return self.transformer.diffloss.sample(
            condition,
            torch.cat([one.guidance for one in controls]),
            start,
            fresh,
            torch.cat([one.residual_temperature for one in controls]),
        )

    def _vector(self, values: list[float]) -> Tensor:
        return torch.cat([torch.full((1,), value, device=self.device) for value in values])

    def _common_scale(self, states: Sequence[GenerationState]) -> int:
        scales = {state.scale for state in states}
        if len(scales) != 1:
            raise ModelError(f"states at scales {sorted(scales)}: a batch must be at one scale")
        (k,) = scales
        if k >= self.scales:
            raise ModelError(f"scale {k}: the image is finished; it has {self.scales} scales")
        return k


def branches(states: Sequence[GenerationState]) -> int:
    """The branches that a batch computes: without guidance the unconditional one would be multiplied by 0."""
    return BRANCHES if any(state.params.guidance > 0 for state in states) else 1


def by_guidance(states: Sequence[GenerationState]) -> list[list[GenerationState]]:
    """States with guidance, and states without. They cannot share a batch: what one lacks in the KV cache, the other
    reads."""
    guided = [state for state in states if state.params.guidance > 0]
    return [group for group in (guided, [state for state in states if state.params.guidance == 0]) if group]


def noisy(states: Sequence[GenerationState]) -> bool:
    """Whether the residual diffusion of a batch adds noise after its steps. Controls may say so later."""
    return any(state.controls or state.params.residual_temperature > 0 for state in states)


def _join(how: Callable[[list[Tensor]], Tensor], parts: Sequence[Pooled]) -> Pooled:
    blocks = [part.block for part in parts if part.block is not None]
    return Pooled(how(blocks) if blocks else None, how([part.head for part in parts]))


def _present(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ModelError("the state skipped its first scale")
    return tensor
