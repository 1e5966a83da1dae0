"""The transformer that predicts an image's tokens scale by scale (docs/spec.md, sections 2 and 3).

It is stateless: the caller passes `attend`, which holds keys and values.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.choose import kernel_runs
from kernels.rms_norm import Modulation
from kernels.split_product import split_product, split_weight
from model.config import TransformerConfig
from model.diffusion import ResidualDiffusion
from model.layers import Gpt2MLP, LlamaMLP, RMSNorm, Rotary, SinusoidEmbedding

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of a step: queries, keys and values, each (rows, H, L, d), to the output of the same shape.

With a method `rotate` (model.kv_cache.Step) it also adds biases and applies the rotary embedding, in one kernel.
"""


@dataclass(frozen=True)
class Pooled:
    """The pooled context, which modulates the blocks and the head."""

    block: Tensor | None
    """(rows, C); None if the config does not modulate blocks."""
    head: Tensor
    """(rows, 2C): scale and bias of the head's norm, float32."""

    def __getitem__(self, rows: slice) -> "Pooled":
        return Pooled(None if self.block is None else self.block[rows], self.head[rows])


class Attention(nn.Module):
    """Self-attention, (rows, L, C) to the same shape. The caller's `attend` caches keys and values."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, self.heads = config.embed_dim, config.num_heads
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)
        self.l2_norm = config.attn_l2_norm
        if self.l2_norm:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, self.heads, 1, 1), math.log(4.0)))
        self.scale = config.attention_scale

    def forward(self, x: Tensor, rotary: Rotary, attend: Attend) -> Tensor:
        rows, length, width = x.shape
        if (rotate := getattr(attend, "rotate", None)) and not self.l2_norm and kernel_runs(x):
            qkv = self.qkv_proj(x).view(rows, length, 3, self.heads, -1)
            gathered = rotate(qkv, (self.q_bias, self.v_bias), (rotary.cos, rotary.sin))
            return self.proj(gathered.transpose(1, 2).reshape(rows, length, width))
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv_proj.weight, bias).view(rows, length, 3, self.heads, -1)
        qk, v = qkv.permute(2, 0, 3, 1, 4).split([2, 1])  # (2, rows, H, L, d) and (1, ...)
        if self.l2_norm:
            q, k = F.normalize(qk, dim=-1)
            qk = torch.stack([q * self.scale_mul_1H11.clamp(max=math.log(100)).exp(), k])
        q, k = rotary.apply(qk)
        gathered = attend(q, k, v[0])
        return self.proj(gathered.transpose(1, 2).reshape(rows, length, width))


class Block(nn.Module):
    """Attention and MLP with skip connections and adaptive modulation."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.ln_wo_grad = RMSNorm(width, config.norm_eps)  # shared by attention and MLP, as released
        self.attn = Attention(config)
        self.ffn = (LlamaMLP if config.mlp_type == "llama" else Gpt2MLP)(width, config.mlp_ratio)
        self.adaptive, self.shared = not config.disable_aln, config.disable_aln and config.shared_aln
        if self.adaptive:
            self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        if self.shared:
            self.scale_shift_table = nn.Parameter(torch.zeros(6, width))

    def forward(
        self, x: Tensor, update: Tensor | None, pooled: Tensor | None, rotary: Rotary, attend: Attend
    ) -> tuple[Tensor, Tensor]:
        """x (rows, L, C); update: what the block before left to be added to x, None for the first block; pooled
        (rows, C), or None for a config without modulation. Returns x and this block's update: their sum is its output,
        and whatever norm follows adds them in passing."""
        gain1, gain2, first, second = self._modulation(pooled)
        norm = self.ln_wo_grad
        x, normed = (x, norm(x, first)) if update is None else norm.add(x, update, modulation=first)
        x, normed = norm.add(x, self.attn(normed, rotary, attend), gain1, second)
        update = self.ffn(normed)
        return x, update if gain2 is None else gain2 * update

    def _modulation(
        self, pooled: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Modulation | None, Modulation | None]:
        """Gains of attention and MLP, and the modulations (scale, bias) before each, all (rows, 1, C)."""
        if pooled is None:
            return None, None, None, None
        six = self.ada_lin(pooled).unflatten(1, (6, -1)) if self.adaptive else self.scale_shift_table + pooled[:, None]
        gain1, gain2, scale1, scale2, bias1, bias2 = six.unsqueeze(2).unbind(1)
        return gain1, gain2, (scale1, bias1), (scale2, bias2)


class HeadNorm(nn.Module):
    """The norm before the logits, modulated by the pooled context."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.ln_wo_grad = RMSNorm(width, eps)
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x (rows, L, C), modulation (rows, 2C)."""
        scale, bias = modulation[:, None].chunk(2, dim=2)
        return self.ln_wo_grad(x, (scale, bias))


class Transformer(nn.Module):
    """State-dict keys are the released ones. V is the tokenizer's vocabulary size, Z its channels."""

    def __init__(self, config: TransformerConfig, vocab_size: int, z_channels: int) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        self.word_embed = nn.Linear(z_channels, width)
        self.context_embed = nn.Linear(config.context_dim, width)
        if config.use_context_norm:
            self.context_norm = RMSNorm(config.context_dim, config.norm_eps)
        self.lvl_embed = SinusoidEmbedding(width) if config.use_timestep_embed else nn.Embedding(config.scales, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head_nm = HeadNorm(width, config.norm_eps)
        self.head = nn.Linear(width, vocab_size)
        self.split_head: Tensor | None = None
        """The head's weight for `split_product`, where its precision is above what the blocks' leaves."""
        self.decoder_norm = RMSNorm(width, config.norm_eps)
        self.diffloss = ResidualDiffusion(
            z_channels, width, config.diff_width, config.diff_depth, config.diffusion_steps
        )

    def join(self) -> None:
        """Prepares the weights for a GPU: those of one input side by side, the head's split for its matrix units.

        To be called again after the weights were moved or replaced.
        """
        for block in self.blocks:
            if isinstance(block.ffn, LlamaMLP):
                block.ffn.join()
        if self.dtype == torch.bfloat16:
            self.split_head = split_weight(self.head.weight.detach())

    def through_blocks(
        self, x: Tensor, pooled: Tensor | None, rotary: Rotary, attend_of: Callable[[int], Attend]
    ) -> Tensor:
        """x (rows, L, C) to the last block's output; `attend_of` returns the attention of each layer."""
        update = None
        for layer, block in enumerate(self.blocks):
            x, update = block(x, update, pooled, rotary, attend_of(layer))
        return x if update is None else x + update

    def keep_float32(self) -> tuple[nn.Module, ...]:
        """The modules with float32 weights in every precision, because logits are computed in float32."""
        return (self.head_nm, self.head)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and activations."""
        return self.word_embed.weight.dtype

    def embed_context(self, context: Tensor) -> Tensor:
        """Text conditioning (rows, T, context_dim) to (rows, T, C)."""
        if self.config.use_context_norm:
            context = self.context_norm(context)
        return self.context_embed(context.to(self.dtype))

    def pool(self, embedded: Tensor, mask: Tensor) -> Pooled:
        """Pools the embedded context (rows, T, C) with its mask (rows, T)."""
        top = embedded.amax(1)
        if self.config.modulated:
            real = mask.to(embedded.dtype)[:, :, None]
            mean = (embedded * real).sum(1) / real.sum(1)
            use_mean = self.config.disable_aln or self.config.sep_aln_pooling_mode == "avg"
            block = mean if use_mean else top
        else:
            block = None
        return Pooled(block, self.head_nm.ada_lin(top.to(self.head.weight.dtype)))

    def level(self, k: int) -> Tensor:
        """The embedding (C,) of scale k."""
        device = self.word_embed.weight.device
        if isinstance(self.lvl_embed, SinusoidEmbedding):
            return self.lvl_embed(torch.full((1,), float(k), device=device))[0]
        return self.lvl_embed.weight[k]

    def embed_map(self, maps: Tensor, k: int) -> Tensor:
        """The input maps of scale k, (rows, Z, n_k, n_k), to tokens (rows, n_k², C)."""
        tokens = maps.flatten(2).transpose(1, 2).to(self.dtype)
        return self.word_embed(tokens) + self.level(k)

    def rotary_context(self, positions: Tensor) -> Rotary:
        """The rotary table of context positions (rows, T)."""
        return Rotary.of_positions(positions, self.config.head_dim)

    def rotary_map(self, k: int, last_positions: Tensor) -> Rotary:
        """The rotary table of scale k. last_positions (rows,): the position of each row's last context slot."""
        config = self.config
        return Rotary.of_map(config.patch_nums[k], config.side, last_positions, config.head_dim)

    def logits(self, hidden: Tensor, head: Tensor) -> Tensor:
        """Hidden (rows, L, C) and the pooled context's `head` (rows, 2C) to logits (rows, L, V), float32."""
        normed = self.head_nm(hidden.to(self.head.weight.dtype), head)
        if self.split_head is not None and kernel_runs(normed):
            return split_product(normed, self.split_head, self.head.bias)
        return self.head(normed).float()

    def diffusion_condition(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """The last scale's hidden (..., L, C) and sampled codes (..., L, Z) to the diffusion's condition."""
        return self.decoder_norm(hidden + self.word_embed(codes.to(self.dtype)))
