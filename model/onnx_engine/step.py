"""The graph of the blocks in one step, for every scale and batch (docs/spec.md, section 2).

Between attentions, tokens lie in rows: (B·L, C). The residual sum and the norm after it are one operation.
"""

import math
from typing import Any

import torch

from model.config import TransformerConfig
from model.layers import LlamaMLP
from model.onnx_engine.graph import Graph
from model.transformer import Transformer

Modulation = tuple[str, str, str]
"""Gain, 1 + scale and bias of one half of a block, (B, 1, C) each."""


def step_graph(net: Transformer) -> Graph:
    """Inputs: x (B, L, C), the embedded tokens; first (1,), int64: the first token of a row whose output is wanted; cos
    and sin (B·L, 1, d), the rotary table; past_keys_i and past_values_i (B, H, P, d) of layer i; condition (B, C) where
    the config modulates blocks.

    Outputs: hidden (B, L - first, C); keys_i and values_i (B·L, C), of the step's own tokens.
    """
    return _Step(net).graph


class _Step:
    def __init__(self, net: Transformer) -> None:
        self.config: TransformerConfig = net.config
        config, self.graph = net.config, Graph("step")
        graph, width = self.graph, config.embed_dim
        tokens = graph.input("x", ("B", "L", width))
        self.first = graph.input("first", (1,), integer=True)
        self.table = tuple(graph.input(name, ("BL", 1, config.head_dim)) for name in ("cos", "sin"))
        condition = graph.input("condition", ("B", width)) if config.modulated else None
        self.active = graph.silu(condition) if condition and not config.disable_aln else condition
        self.shape = graph.op("Shape", tokens)
        x, update = graph.reshape(tokens, -1, width), None
        for layer, block in enumerate(net.blocks):
            x, update = self._block(block, layer, x, update, last=layer == config.depth - 1)
        hidden = x if update is None else graph.op("Add", x, update)
        graph.output("hidden", graph.op("Reshape", hidden, self.shape), ("B", "kept", width))

    def _block(self, block: Any, layer: int, x: str, update: str | None, last: bool) -> tuple[str, str]:
        """The sum before the block's MLP, and what the MLP adds; `update` is what the block before adds to x."""
        graph = self.graph
        halves = self._modulations(block)
        x, normed = self._norm(block, x, update, halves[0])
        update = self._attention(block.attn, layer, normed, last)
        if last:  # no output reads the other tokens
            x, self.shape = self._wanted(x), graph.op("Shape", update)
            update = graph.reshape(update, -1, self.config.embed_dim)
        x, normed = self._norm(block, x, self._gained(update, halves[0]), halves[1])
        return x, self._gained(self._mlp(block.ffn, normed), halves[1])

    def _wanted(self, x: str) -> str:
        """Rows of tokens without those before `first`."""
        graph, width = self.graph, self.config.embed_dim
        kept = graph.slice(graph.op("Reshape", x, self.shape), 1, self.first)
        return graph.reshape(kept, -1, width)

    def _modulations(self, block: Any) -> list[Modulation | None]:
        if not self.active:
            return [None, None]
        graph, width = self.graph, self.config.embed_dim
        if block.adaptive:
            six = graph.reshape(graph.linear(self.active, block.ada_lin[1].weight, block.ada_lin[1].bias), 0, 6, width)
        else:
            six = graph.op("Add", graph.reshape(self.active, 0, 1, width), graph.weight(block.scale_shift_table))
        gain1, gain2, scale1, scale2, bias1, bias2 = graph.split(six, 6, axis=1)
        one = graph.scalar(1.0)
        return [(gain1, graph.op("Add", scale1, one), bias1), (gain2, graph.op("Add", scale2, one), bias2)]

    def _norm(self, block: Any, x: str, update: str | None, half: Modulation | None) -> tuple[str, str]:
        """x + update, and its norm with the half's modulation."""
        graph, eps = self.graph, self.config.norm_eps
        weight = graph.weight(block.ln_wo_grad.weight)
        if update is None:
            normed = graph.op("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=eps, stash_type=1)
        else:
            normed, _, _, x = graph.fused("SkipSimplifiedLayerNormalization", x, update, weight, outputs=4, epsilon=eps)
        if half:
            _, scale, bias = half
            normed = graph.op("Add", graph.op("Mul", graph.op("Reshape", normed, self.shape), scale), bias)
            normed = graph.reshape(normed, -1, self.config.embed_dim)
        return x, normed

    def _gained(self, update: str, half: Modulation | None) -> str:
        if not half:
            return update
        graph = self.graph
        gained = graph.op("Mul", graph.op("Reshape", update, self.shape), half[0])
        return graph.reshape(gained, -1, self.config.embed_dim)

    def _attention(self, attn: Any, layer: int, x: str, last: bool) -> str:
        """Normed rows (B·L, C) to (B·L, C), or in the last block to (B, L - first, C)."""
        graph, config = self.graph, self.config
        width, heads, size = config.embed_dim, config.num_heads, config.head_dim
        weight, bias = attn.qkv_proj.weight, torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias)])
        qk = graph.linear(x, weight[: 2 * width], bias)
        v = graph.linear(x, weight[2 * width :], attn.v_bias)
        if attn.l2_norm:
            unit = graph.op("LpNormalization", graph.reshape(qk, -1, 2, heads, size), axis=-1, p=2)
            scales = attn.scale_mul_1H11.clamp(max=math.log(100)).exp().view(1, heads, 1)
            gains = torch.stack([scales, torch.ones_like(scales)], dim=1)  # (1, 2, H, 1)
            qk = graph.op("Mul", unit, graph.weight(gains))
        halves = graph.reshape(qk, -1, 2 * heads, 2, size // 2)
        swapped = graph.op("Gather", halves, graph.numbers(1, 0), axis=2)
        qk, swapped = (graph.reshape(part, -1, 2 * heads, size) for part in (qk, swapped))
        cos, sin = self.table
        rotated = graph.op("Add", graph.op("Mul", qk, cos), graph.op("Mul", swapped, sin))
        q, k = graph.split(graph.reshape(rotated, -1, 2 * width), 2, axis=1)
        k = graph.output(f"keys_{layer}", k, ("BL", width))
        v = graph.output(f"values_{layer}", v, ("BL", width))
        q, k, v = (graph.op("Reshape", part, self.shape) for part in (q, k, v))
        q = graph.slice(q, 1, self.first) if last else q
        kept = (graph.input(f"past_{name}_{layer}", ("B", heads, "P", size)) for name in ("keys", "values"))
        mixed, _, _ = graph.fused(
            "MultiHeadAttention", q, k, v, "", "", "", *kept, outputs=3, num_heads=heads, scale=config.attention_scale
        )
        if not last:
            mixed = graph.reshape(mixed, -1, width)
            return graph.linear(mixed, attn.proj.weight, attn.proj.bias)
        return graph.op("Add", graph.linear(mixed, attn.proj.weight), graph.weight(attn.proj.bias))

    def _mlp(self, mlp: Any, x: str) -> str:
        graph = self.graph
        if not isinstance(mlp, LlamaMLP):
            hidden = graph.op("Gelu", graph.linear(x, mlp.fc1.weight, mlp.fc1.bias), approximate="tanh")
            return graph.linear(hidden, mlp.fc2.weight, mlp.fc2.bias)
        gated = graph.op("Mul", graph.silu(graph.linear(x, mlp.gate_proj.weight)), graph.linear(x, mlp.up_proj.weight))
        return graph.linear(gated, mlp.down_proj.weight)
