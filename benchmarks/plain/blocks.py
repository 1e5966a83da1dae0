"""docs/spec.md, sections 2 and 4: the transformer's blocks, its logits, and the residual diffusion."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import TransformerConfig
from model.diffusion import RESIDUAL_SCALE, ResidualDiffusion
from model.transformer import Transformer

Past = tuple[Tensor, Tensor]
"""Keys and values of a layer so far, (rows, H, tokens, d) each."""
Table = tuple[Tensor, Tensor]
"""Cosines and sines, (rows, 1, L, d) each."""


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def table_of(angles: Tensor) -> Table:
    """The rotary table of angles (rows, L, d)."""
    return angles.cos()[:, None], angles.sin()[:, None]


def context_table(positions: Tensor, d: int) -> Table:
    """The one-dimensional rotary table of positions (rows, T)."""
    frequencies = 10000.0 ** (-2 * torch.arange(d // 2) / d)
    angles = positions[:, :, None] * frequencies
    return table_of(torch.cat([angles, angles], dim=-1))


def map_table(side: int, latent_side: int, offsets: Tensor, d: int) -> Table:
    """The two-dimensional rotary table of a scale. offsets (rows,)."""
    frequencies = 10000.0 ** (-4 * torch.arange(d // 4) / d)
    index = torch.arange(side * side)
    rows, columns = index // side / side * latent_side, index % side / side * latent_side
    r, c = (((line + offsets[:, None])[:, :, None] * frequencies) for line in (rows, columns))
    return table_of(torch.cat([r, r, c, c], dim=-1))


def rotate(x: Tensor, table: Table) -> Tensor:
    half = x.shape[-1] // 2
    return x * table[0] + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * table[1]


def attention(net: Any, config: TransformerConfig, x: Tensor, table: Table, past: Past | None) -> tuple[Tensor, Past]:
    """x (rows, L, C) to the same shape, and the keys and values with this step's."""
    rows, length, width = x.shape
    bias = torch.cat([net.q_bias, torch.zeros_like(net.q_bias), net.v_bias])
    qkv = F.linear(x, net.qkv_proj.weight, bias).view(rows, length, 3, config.num_heads, config.head_dim)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    if config.attn_l2_norm:
        q, k = F.normalize(q, dim=-1) * net.scale_mul_1H11.clamp(max=math.log(100)).exp(), F.normalize(k, dim=-1)
    q, k = rotate(q, table), rotate(k, table)
    if past is not None:
        k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
    mixed = F.scaled_dot_product_attention(q, k, v, scale=config.attention_scale)
    return F.linear(mixed.transpose(1, 2).reshape(rows, length, width), net.proj.weight, net.proj.bias), (k, v)


def feed_forward(net: Any, config: TransformerConfig, x: Tensor) -> Tensor:
    if config.mlp_type == "gpt2":
        hidden = F.gelu(F.linear(x, net.fc1.weight, net.fc1.bias), approximate="tanh")
        return F.linear(hidden, net.fc2.weight, net.fc2.bias)
    return F.linear(F.silu(F.linear(x, net.gate_proj.weight)) * F.linear(x, net.up_proj.weight), net.down_proj.weight)


def block(
    net: Any, config: TransformerConfig, x: Tensor, condition: Tensor | None, table: Table, past: Past | None
) -> tuple[Tensor, Past]:
    """One block. condition (rows, C): the pooled context, None for a config without modulation."""
    weight, eps = net.ln_wo_grad.weight, config.norm_eps
    if condition is None:
        update, kept = attention(net.attn, config, norm(x, weight, eps), table, past)
        x = x + update
        return x + feed_forward(net.ffn, config, norm(x, weight, eps)), kept
    if config.disable_aln:
        six = (net.scale_shift_table + condition[:, None]).unsqueeze(2)
    else:
        six = F.linear(F.silu(condition), net.ada_lin[1].weight, net.ada_lin[1].bias).view(len(x), 6, 1, -1)
    gain1, gain2, scale1, scale2, bias1, bias2 = six.unbind(1)
    update, kept = attention(net.attn, config, norm(x, weight, eps) * (1 + scale1) + bias1, table, past)
    x = x + gain1 * update
    return x + gain2 * feed_forward(net.ffn, config, norm(x, weight, eps) * (1 + scale2) + bias2), kept


def logits(net: Transformer, hidden: Tensor, top: Tensor) -> Tensor:
    """hidden (rows, L, C) and the max-pooled context (rows, C) to (rows, L, V)."""
    head: Any = net.head_nm
    scale, bias = F.linear(F.silu(top), head.ada_lin[1].weight, head.ada_lin[1].bias)[:, None].chunk(2, dim=-1)
    normed = norm(hidden, head.ln_wo_grad.weight, net.config.norm_eps) * (1 + scale) + bias
    return F.linear(normed, net.head.weight, net.head.bias)


def sinusoid(net: Any, numbers: Tensor) -> Tensor:
    """The sinusoidal embedding of numbers (n,) and its MLP, (n, width)."""
    angles = numbers[:, None] * 10000.0 ** (-torch.arange(128) / 128)
    first, second = net.mlp[0], net.mlp[2]
    waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.linear(F.silu(F.linear(waves, first.weight, first.bias)), second.weight, second.bias)


def denoise(net: Any, x: Tensor, t: int, condition: Tensor) -> tuple[Tensor, Tensor]:
    """x (rows, Z), the step's number and condition (rows, C) to ε and v, (rows, Z) each."""
    h = F.linear(x, net.input_proj.weight, net.input_proj.bias)
    time = sinusoid(net.time_embed, torch.full((len(x),), float(t)))
    y = F.silu(time + F.linear(condition, net.cond_embed.weight, net.cond_embed.bias))
    width = h.shape[-1]
    for part in net.res_blocks:
        line = part.adaLN_modulation[1]
        shift, scale, gate = F.linear(y, line.weight, line.bias).chunk(3, dim=-1)
        inner = F.layer_norm(h, (width,), part.in_ln.weight, part.in_ln.bias, 1e-6) * (1 + scale) + shift
        inner = F.silu(F.linear(inner, part.mlp[0].weight, part.mlp[0].bias))
        h = h + gate * F.linear(inner, part.mlp[2].weight, part.mlp[2].bias)
    last = net.final_layer
    shift, scale = F.linear(y, last.adaLN_modulation[1].weight, last.adaLN_modulation[1].bias).chunk(2, dim=-1)
    h = F.layer_norm(h, (width,), None, None, 1e-6) * (1 + scale) + shift
    noise, share = F.linear(h, last.linear.weight, last.linear.bias).chunk(2, dim=-1)
    return noise, share


def residual(head: ResidualDiffusion, condition: Tensor, t: float, start: Tensor, fresh: list[Tensor]) -> Tensor:
    """Samples residual tokens (L, Z). condition (2L, C): conditional rows, then unconditional ones."""
    x = start
    for j, step in enumerate(reversed(head.schedule)):
        noise, share = denoise(head.net, torch.cat([x, x]), step.t, condition)
        conditional, unconditional = noise.chunk(2)
        noise, share = (1 + t) * conditional - t * unconditional, (share.chunk(2)[0] + 1) / 2
        begun = (math.sqrt(1 / step.alpha_bar) * x - math.sqrt(1 / step.alpha_bar - 1) * noise).clamp(-1, 1)
        x = step.from_start * begun + step.from_here * x
        if j < len(fresh):
            log_variance = share * math.log(step.beta) + (1 - share) * math.log(step.variance)
            x = x + torch.exp(0.5 * log_variance) * fresh[j]
    return x * RESIDUAL_SCALE
