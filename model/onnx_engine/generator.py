"""Advances images by a scale: blocks, logits and residual diffusion on ONNX Runtime, what is small in torch.

The KV cache is the generator's own, so that torch may go on where this one stops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from model import noise as randomness
from model.generation import GenerationState, Generator, branches, noisy
from model.kv_cache import BRANCHES, contiguous_runs
from model.layers import Rotary
from model.onnx_engine import heads
from model.onnx_engine.graph import Array
from model.onnx_engine.noise import draw_ahead
from model.onnx_engine.session import Session
from model.onnx_engine.step import step_graph
from model.sampling import MINUS_INFINITY, draw_tokens, keep_top_p, soft_weights, top_k


@dataclass(frozen=True)
class _Scale:
    """What the images of one step have in common."""

    k: int
    start: int
    """The step's first token in a row of the KV cache."""
    first: int
    """The step's first token whose output is wanted."""
    rows: Sequence[int]
    """Rows of the KV cache."""


class OnnxGenerator:
    """`advance` on ONNX Runtime (model.generation.Shortcut). Not thread-safe, as the generator."""

    def __init__(self, generator: Generator, threads: int) -> None:
        net = generator.transformer
        self.generator, self.config = generator, net.config
        with torch.inference_mode():
            self.levels = [net.level(k) for k in range(self.config.scales)]
        self.step = Session(step_graph(net), threads)
        self.heads = {count: Session(heads.logits_graph(net, count), threads) for count in (1, BRANCHES)}
        # Made when first wanted: requests seldom differ in it.
        self.residual = cache(lambda *kind: Session(heads.residual_graph(net, *kind), threads))
        self.fits = self.config.diffusion_steps <= heads.MAX_STEPS

    @torch.inference_mode()
    def advance(self, k: int, states: Sequence[GenerationState]) -> bool:
        """Advances states at scale k."""
        generator, last, count = self.generator, k == self.config.scales - 1, branches(states)
        hidden = self._context(states) if k == 0 else self._map(k, states)
        ratio = generator.ratio(k)
        t = np.array([state.params.guidance * ratio for state in states], np.float32)[:, None, None, None]
        inputs = {"hidden": hidden, "head": torch.stack([state.pooled.head[:count] for state in states]).numpy()}
        logits = torch.from_numpy(self.heads[count](**inputs, **_guidance(t, count))["logits"])
        tokens, embeddings = self._sample(states, logits.unflatten(0, (len(states), -1)), k, ratio)
        if last:
            embeddings = embeddings + self._residual(states, hidden, tokens, t)
        quantizer = generator.quantizer
        latent = torch.stack([state.latent for state in states])
        latent = quantizer.accumulate(latent, k, quantizer.as_map(embeddings))
        maps = None if last else quantizer.next_map(latent, k)
        for i, state in enumerate(states):
            state.latent, state.tokens, state.scale, state.embedded = latent[i], tokens[i], k + 1, None
            state.next_map = None if maps is None else maps[i]
        return True

    def _context(self, states: Sequence[GenerationState]) -> Array:
        """The context of the conditional branch; that of the other is the generator's. Hidden (n, branches, 1, C)."""
        net, length = self.generator.transformer, self.config.context_token
        x = torch.stack([state.embedded for state in states if state.embedded is not None]) + self.levels[0]
        rotary = net.rotary_context(torch.stack([state.conditioning.positions for state in states]))
        rows = [BRANCHES * state.slot for state in states]
        blocks = [state.pooled.block[:1] for state in states if state.pooled.block is not None]
        hidden = self._blocks(x, rotary, blocks, _Scale(0, 0, length - 1, rows))
        if branches(states) == 1:
            return hidden[:, None]
        other = self.generator.unconditional_hidden.expand(len(states), 1, -1)
        return np.stack([hidden, other.numpy()], axis=1)

    def _map(self, k: int, states: Sequence[GenerationState]) -> Array:
        """The tokens of scale k. Hidden (n, branches, L, C)."""
        net, count = self.generator.transformer, branches(states)
        maps = torch.stack([state.next_map for state in states if state.next_map is not None])
        x = net.word_embed(maps.flatten(2).transpose(1, 2)) + self.levels[k]
        rotary = net.rotary_map(k, torch.cat([state.last_positions[:count] for state in states]))
        rows = [BRANCHES * state.slot + branch for state in states for branch in range(count)]
        start = self.config.context_token + sum(n * n for n in self.config.patch_nums[1:k])
        blocks = [state.pooled.block[:count] for state in states if state.pooled.block is not None]
        hidden = self._blocks(x.repeat_interleave(count, dim=0), rotary, blocks, _Scale(k, start, 0, rows))
        return hidden.reshape(len(states), count, *hidden.shape[1:])

    def _blocks(self, x: Tensor, rotary: Rotary, conditions: list[Tensor], scale: _Scale) -> Array:
        """Runs the blocks on x (rows, L, C), and keeps keys and values where a later step reads them."""
        cache, runs, length = self.generator.kv_cache, contiguous_runs(scale.rows), x.shape[1]
        inputs = {"x": x.numpy(), "first": np.array([scale.first])}
        inputs |= {name: table.transpose(1, 2).flatten(0, 1).numpy() for name, table in vars(rotary).items()}
        if conditions:
            inputs["condition"] = torch.cat(conditions).numpy()
        kept = {"keys": cache.keys, "values": cache.values}
        for name, tensor in kept.items():
            parts = [tensor[:, first : first + n, :, : scale.start] for _, first, n in runs]
            past = (torch.cat(parts, dim=1) if len(parts) > 1 else parts[0].contiguous()).numpy()
            inputs |= {f"past_{name}_{i}": past[i] for i in range(len(past))}
        outputs = self.step(**inputs)
        if scale.k < self.config.scales - 1:
            shape = (len(scale.rows), length, self.config.num_heads, -1)
            for name, tensor in kept.items():
                for layer in range(self.config.depth):
                    fresh = torch.from_numpy(outputs[f"{name}_{layer}"]).view(shape).transpose(1, 2)
                    for at, first, n in runs:
                        tensor[layer, first : first + n, :, scale.start : scale.start + length] = fresh[at : at + n]
        return outputs["hidden"]

    def _sample(self, states: Sequence[GenerationState], logits: Tensor, k: int, ratio: float) -> tuple[Tensor, Tensor]:
        """Guided logits (n, L, V) to indices (n, L) and embeddings (n, L, Z)."""
        sources, book = [state.noise for state in states], self.generator.quantizer.embedding.weight
        smooth = torch.tensor([state.params.more_smooth for state in states])
        broken = ~logits.sum(-1).isfinite()  # NaN embeddings show the error in the latent
        logits = _keep_top_k(logits, k)
        if any(state.params.top_p > 0 for state in states):
            logits = keep_top_p(logits, torch.tensor([state.params.top_p for state in states]))
        mixtures = bool(smooth.any())
        draw_ahead(sources, k, self.generator.noise_scales, mixtures)
        noise = randomness.draw_scale(sources, k, self.generator.noise_scales, mixtures)
        tokens = draw_tokens(logits, noise[0])
        embeddings = self.generator.quantizer.embedding(tokens)
        if mixtures:
            soft = soft_weights(logits, noise[1], ratio) @ book
            embeddings = torch.where(smooth[:, None, None], soft, embeddings)
        return tokens, embeddings.masked_fill(broken[..., None], torch.nan)

    def _residual(self, states: Sequence[GenerationState], hidden: Array, tokens: Tensor, t: Array) -> Tensor:
        """The residual tokens (n, L, Z) of the last scale."""
        codes, adds = self.generator.quantizer.embedding(tokens), noisy(states)
        steps, shape = self.config.diffusion_steps - 1 if adds else 0, (codes.shape[1], codes.shape[2])
        start, fresh = randomness.draw_diffusion(
            [state.noise for state in states], self.config.scales - 1, steps, shape
        )
        temperatures = torch.tensor([state.params.residual_temperature for state in states])
        if not self.fits:
            net, guidance = self.generator.transformer, torch.from_numpy(t[:, 0, 0, 0])
            condition = net.diffusion_condition(torch.from_numpy(hidden), codes[:, None])
            return net.diffloss.sample(condition, guidance, start, fresh, temperatures)
        inputs = {"hidden": hidden, "codes": codes[:, None].numpy(), "start": start[:, None].numpy()}
        if adds:
            inputs["fresh"] = (fresh * temperatures[:, None, None]).transpose(0, 1).numpy()
        found = self.residual(hidden.shape[1], adds)(**inputs, **_guidance(t, hidden.shape[1]))
        return torch.from_numpy(found["residual"][:, 0])


def _guidance(t: Array, count: int) -> dict[str, Array]:
    """The input t of a graph, where it has the unconditional branch."""
    return {"t": t} if count == BRANCHES else {}


def _keep_top_k(logits: Tensor, k: int) -> Tensor:
    """As model.sampling.keep_top_k: numpy's partition takes half the time of torch's topk."""
    kept, count = top_k(k), logits.shape[-1]
    if kept >= count:
        return logits
    threshold = np.partition(logits.numpy(), count - kept, axis=-1)[..., count - kept : count - kept + 1]
    return torch.where(logits < torch.from_numpy(threshold), MINUS_INFINITY, logits)
