"""The graphs of the logits and of the residual diffusion (docs/spec.md, sections 2 and 4)."""

import math
from typing import Any

import torch

from model.diffusion import RESIDUAL_SCALE, Step
from model.kv_cache import BRANCHES
from model.onnx_engine.graph import Graph
from model.transformer import Transformer

MAX_STEPS = 64
"""Diffusion steps that a graph holds, one after another."""


def logits_graph(net: Transformer, branches: int) -> Graph:
    """Inputs: hidden (n, branches, L, C); head (n, branches, 2C), the pooled context's; with two branches t
    (n, 1, 1, 1), guidance.

    Output: logits (n·L, V) with guidance. The head is linear: guidance is applied to its input, so that there is one
    product for both branches.
    """
    graph, width = Graph("logits"), net.config.embed_dim
    hidden = graph.input("hidden", ("n", branches, "L", width))
    lines = graph.reshape(graph.input("head", ("n", branches, 2 * width)), 0, branches, 1, -1)
    scale, bias = graph.split(lines, 2, axis=3)
    weight = graph.weight(net.head_nm.ln_wo_grad.weight)
    eps = net.config.norm_eps
    x = graph.op("SimplifiedLayerNormalization", hidden, weight, axis=-1, epsilon=eps, stash_type=1)
    x = graph.op("Add", graph.op("Mul", x, graph.op("Add", scale, graph.scalar(1.0))), bias)
    if branches == BRANCHES:
        x = _guided(graph, x, graph.input("t", ("n", 1, 1, 1)))
    guided = graph.reshape(x, -1, width)
    graph.output("logits", graph.linear(guided, net.head.weight, net.head.bias), ("nL", net.head.out_features))
    return graph


def _guided(graph: Graph, both: str, t: str) -> str:
    """(n, 2, ...), conditional first, to (n, 1, ...): conditional + t·(conditional - unconditional)."""
    conditional, unconditional = graph.split(both, 2, axis=1)
    return graph.op("Add", conditional, graph.op("Mul", t, graph.op("Sub", conditional, unconditional)))


def residual_graph(net: Transformer, branches: int, noisy: bool) -> Graph:
    """Inputs: hidden (n, branches, L, C) of the last scale; codes (n, 1, L, Z), sampled there; with two branches t
    (n, 1, 1, 1), guidance; start (n, 1, L, Z); if noisy, fresh (n, steps - 1, L, Z), multiplied by the temperature.

    Output: residual (n, 1, L, Z).
    """
    return _Residual(net, branches, noisy).graph


class _Residual:
    def __init__(self, net: Transformer, branches: int, noisy: bool) -> None:
        graph = self.graph = Graph("residual")
        self.branches = branches
        head, width, channels = net.diffloss, net.config.embed_dim, net.word_embed.in_features
        self.net: Any = head.net
        hidden = graph.input("hidden", ("n", branches, "L", width))
        codes = graph.input("codes", ("n", 1, "L", channels))
        self.t = graph.input("t", ("n", 1, 1, 1)) if branches == BRANCHES else ""
        x = graph.input("start", ("n", 1, "L", channels))
        count = len(head.schedule) - 1 if noisy else 0
        parts = graph.split(graph.input("fresh", ("n", count, "L", channels)), count, axis=1) if noisy else []
        words = graph.op("MatMul", codes, graph.weight(net.word_embed.weight.t()))
        words = graph.op("Add", words, graph.weight(net.word_embed.bias))
        condition = graph.op(
            "SimplifiedLayerNormalization",
            graph.reshape(graph.op("Add", hidden, words), -1, width),
            graph.weight(net.decoder_norm.weight),
            axis=-1,
            epsilon=net.config.norm_eps,
            stash_type=1,
        )
        embed = self.net.cond_embed
        condition = graph.linear(condition, embed.weight, embed.bias)
        self.shape = graph.op("Concat", graph.op("Shape", hidden, end=3), graph.numbers(2 * channels), axis=0)
        with torch.no_grad():
            times = self.net.time_embed(torch.tensor([float(step.t) for step in head.schedule]))
        for j, step in enumerate(reversed(head.schedule)):
            x = self._step(x, condition, times[len(times) - 1 - j], step, parts[j] if j < count else None)
        graph.output("residual", graph.op("Mul", x, graph.scalar(RESIDUAL_SCALE)), ("n", 1, "L", channels))

    def _step(self, x: str, condition: str, time: torch.Tensor, step: Step, fresh: str | None) -> str:
        graph = self.graph
        active = graph.silu(graph.op("Add", condition, graph.weight(time)))
        conditional, *unconditional = graph.split(self._denoise(x, active), self.branches, axis=1)
        noise, share = graph.split(conditional, 2, axis=3)
        for one in unconditional:
            other, _ = graph.split(one, 2, axis=3)
            noise = graph.op("Add", noise, graph.op("Mul", self.t, graph.op("Sub", noise, other)))
        begun = graph.op(
            "Sub",
            self._times(x, 1 / math.sqrt(step.alpha_bar)),
            self._times(noise, math.sqrt(1 / step.alpha_bar - 1)),
        )
        begun = graph.op("Clip", begun, graph.scalar(-1.0), graph.scalar(1.0))
        mean = graph.op("Add", self._times(begun, step.from_start), self._times(x, step.from_here))
        if fresh is None:
            return mean
        # Half of the logarithm of the variance: from ln β (share 1) to ln β̃ (share -1).
        high, low = math.log(step.beta), math.log(step.variance)
        half = graph.op("Add", self._times(share, (high - low) / 4), graph.scalar((high + low) / 4))
        return graph.op("Add", mean, graph.op("Mul", graph.op("Exp", half), fresh))

    def _times(self, x: str, factor: float) -> str:
        return self.graph.op("Mul", x, self.graph.scalar(factor))

    def _denoise(self, x: str, active: str) -> str:
        """x (n, 1, L, Z) and the condition after its SiLU, (n·branches·L, W), to (n, branches, L, 2Z): noise, share."""
        graph, net = self.graph, self.net
        inner = net.input_proj
        h = graph.op("MatMul", x, graph.weight(inner.weight.t()))
        h = graph.op("Add", h, graph.weight(inner.bias))
        h = graph.op("Concat", h, h, axis=1) if self.branches == BRANCHES else h
        h = graph.reshape(h, -1, inner.out_features)
        for block in net.res_blocks:
            shift, scale, gate = self._modulation(block.adaLN_modulation[1], active, 3)
            update = self._modulated(h, block.in_ln, shift, scale)
            update = graph.silu(graph.linear(update, block.mlp[0].weight, block.mlp[0].bias))
            update = graph.linear(update, block.mlp[2].weight, block.mlp[2].bias)
            h = graph.op("Add", h, graph.op("Mul", gate, update))
        last = net.final_layer
        shift, scale = self._modulation(last.adaLN_modulation[1], active, 2)
        out = graph.linear(self._modulated(h, None, shift, scale), last.linear.weight, last.linear.bias)
        return graph.op("Reshape", out, self.shape)

    def _modulation(self, line: Any, active: str, count: int) -> list[str]:
        """Shift, 1 + scale and, of a block, gate: (rows, W) each."""
        weights, biases = line.weight.detach().chunk(count), list(line.bias.detach().chunk(count))
        biases[1] = biases[1] + 1
        return [self.graph.linear(active, weight, bias) for weight, bias in zip(weights, biases, strict=True)]

    def _modulated(self, h: str, norm: Any, shift: str, scale: str) -> str:
        graph, width = self.graph, self.net.input_proj.out_features
        weight, bias = (norm.weight, norm.bias) if norm else (torch.ones(width), torch.zeros(width))
        lines = (graph.weight(weight), graph.weight(bias))
        normed = graph.op("LayerNormalization", h, *lines, axis=-1, epsilon=1e-6)
        return graph.op("Add", graph.op("Mul", normed, scale), shift)
