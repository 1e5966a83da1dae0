"""The decoder on ONNX Runtime (docs/spec.md, section 5)."""

from typing import Any

import torch
from torch import Tensor

from model.autoencoder import GROUPS
from model.onnx_engine.graph import Graph
from model.onnx_engine.session import Session
from model.tokenizer import HybridTokenizer


class OnnxDecoder:
    """Latents (B, Z, n, n) to images (B, 3, f n, f n), not clamped."""

    def __init__(self, tokenizer: HybridTokenizer, threads: int) -> None:
        self._session = Session(decoder_graph(tokenizer), threads)

    def __call__(self, latent: Tensor) -> Tensor:
        return torch.from_numpy(self._session(latent=latent.numpy())["image"])


def decoder_graph(tokenizer: HybridTokenizer) -> Graph:
    """Input: latent (B, Z, n, n). Output: image (B, 3, f n, f n), not clamped."""
    graph, channels = Graph("decoder"), tokenizer.config.z_channels
    decoder: Any = tokenizer.decoder
    x = graph.input("latent", ("B", channels, "n", "n"))
    x = _middle(graph, decoder.mid, _conv(graph, _conv(graph, x, tokenizer.post_quant_conv), decoder.conv_in))
    for level in reversed(decoder.up):
        for j, block in enumerate(level.block):
            x = _residual(graph, block, x)
            x = _attention(graph, level.attn[j], x) if len(level.attn) else x
        x = _upsample(graph, x, level.upsample.conv) if level.step_name else x
    x = _conv(graph, graph.silu(_norm(graph, decoder.norm_out, x)), decoder.conv_out)
    graph.output("image", x, ("B", 3, "side", "side"))
    return graph


def _conv(graph: Graph, x: str, conv: Any) -> str:
    return _convolve(graph, x, conv.weight, conv.bias, [conv.weight.shape[-1] // 2] * 4)


def _convolve(graph: Graph, x: str, weight: Tensor, bias: Tensor, pads: list[int]) -> str:
    return graph.op("Conv", x, graph.weight(weight), graph.weight(bias), pads=pads)


def _norm(graph: Graph, norm: Any, x: str) -> str:
    width = norm.num_channels
    if width == GROUPS:
        return graph.op(
            "InstanceNormalization", x, graph.weight(norm.weight), graph.weight(norm.bias), epsilon=norm.eps
        )
    grouped = graph.reshape(x, 0, GROUPS, -1)
    ones, zeros = norm.weight.new_ones(GROUPS), norm.weight.new_zeros(GROUPS)
    unit = graph.op("InstanceNormalization", grouped, graph.weight(ones), graph.weight(zeros), epsilon=norm.eps)
    unit = graph.op("Reshape", unit, graph.op("Shape", x))
    lines = (graph.weight(line.view(width, 1, 1)) for line in (norm.weight, norm.bias))
    return graph.op("Add", graph.op("Mul", unit, next(lines)), next(lines))


def _residual(graph: Graph, block: Any, x: str) -> str:
    h = _conv(graph, graph.silu(_norm(graph, block.norm1, x)), block.conv1)
    h = _conv(graph, graph.silu(_norm(graph, block.norm2, h)), block.conv2)
    return graph.op("Add", _conv(graph, x, block.nin_shortcut) if block.widens else x, h)


def _attention(graph: Graph, block: Any, x: str) -> str:
    width = block.proj_out.weight.shape[0]
    qkv = graph.reshape(_conv(graph, _norm(graph, block.norm, x), block.qkv), 0, 3 * width, -1)
    q, k, v = graph.split(graph.op("Transpose", qkv, perm=[0, 2, 1]), 3, axis=2)
    mixed = graph.fused("MultiHeadAttention", q, k, v, num_heads=1)
    mixed = graph.op("Reshape", graph.op("Transpose", mixed, perm=[0, 2, 1]), graph.op("Shape", x))
    return graph.op("Add", x, _conv(graph, mixed, block.proj_out))


def _middle(graph: Graph, middle: Any, x: str) -> str:
    x = _attention(graph, middle.attn_1, _residual(graph, middle.block_1, x))
    return _residual(graph, middle.block_2, x)


def _upsample(graph: Graph, x: str, conv: Any) -> str:
    """Doubles the sides and convolves, as four 2x2 convolutions of the small map: one for each place in a 2x2 square.

    A row of the doubled map is a row of the small one, so that two of a kernel's three rows meet the same numbers: the
    sum of their weights serves both. That is 4/9 of the products.
    """
    weight, phases = conv.weight.detach(), []
    for i in (0, 1):
        rows = _pairs(weight, 2, i)
        phases += [_convolve(graph, x, _pairs(rows, 3, j), conv.bias, [1 - i, 1 - j, i, j]) for j in (0, 1)]
    return graph.op("DepthToSpace", graph.op("Concat", *phases, axis=1), blocksize=2, mode="DCR")


def _pairs(weight: Tensor, axis: int, phase: int) -> Tensor:
    """A kernel of three along `axis` as the one of two that meets the small map, for an even or an odd place."""
    first, second, third = weight.split(1, dim=axis)
    pair = (first, second + third) if phase == 0 else (first + second, third)
    return torch.cat(pair, dim=axis)
