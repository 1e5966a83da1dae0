"""docs/spec.md, sections 3 and 5: from a prompt's conditioning to pixels, one picture at a time."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.plain import blocks
from model.generation import Conditioning
from model.noise import DIFFUSION_START, DIFFUSION_STEP, GUMBEL, TOKEN_DRAW, Noise
from model.params import SamplingParams
from model.quantizer import Quantizer
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer


class Plain:
    """The baseline over the weights of a loaded model, float32 on a CPU."""

    def __init__(self, net: Transformer, quantizer: Quantizer, tokenizer: HybridTokenizer) -> None:
        self.net, self.quantizer, self.tokenizer, self.config = net, quantizer, tokenizer, net.config

    @torch.inference_mode()
    def draw(self, given: Conditioning, noise: Noise, params: SamplingParams) -> tuple[list[Tensor], Tensor]:
        """One prompt's conditioning, (T, context_dim): every scale's tokens, (n_k²,) each, and pixels (H, W, 3)."""
        net, config = self.net, self.config
        context = torch.stack([given.context, torch.zeros_like(given.context)])
        if config.use_context_norm:
            context = blocks.norm(context, net.context_norm.weight, config.norm_eps)
        embedded = F.linear(context, net.context_embed.weight, net.context_embed.bias)
        top, condition = embedded.amax(1), self._condition(embedded, given.mask)
        positions = torch.stack([given.positions, torch.zeros_like(given.positions)])
        table = blocks.context_table(positions, config.head_dim)
        past: list[blocks.Past | None] = [None] * config.depth
        latent = torch.zeros(1, self.quantizer.embedding.embedding_dim, config.side, config.side)
        x, drawn = embedded + self._level(0), []
        for k, side in enumerate(config.patch_nums):
            if k:
                words = F.linear(
                    F.interpolate(latent, (side, side), mode="area").flatten(2).transpose(1, 2),
                    net.word_embed.weight,
                    net.word_embed.bias,
                )
                x = (words + self._level(k)).repeat(2, 1, 1)
                table = blocks.map_table(side, config.side, positions[:, -1], config.head_dim)
            for i, part in enumerate(net.blocks):
                x, past[i] = blocks.block(part, config, x, condition, table, past[i])
            if not k:
                x = x[:, -1:]
            tokens, embeddings = self._sample(blocks.logits(net, x, top), noise, params, k)
            drawn.append(tokens)
            if k == config.scales - 1:
                embeddings = embeddings + self._residual(x, tokens, noise, params)
            latent = latent + self._contribution(embeddings.T.reshape(1, -1, side, side), k)
        return drawn, self._pixels(latent)

    def _condition(self, embedded: Tensor, mask: Tensor) -> Tensor | None:
        config = self.config
        if not config.modulated:
            return None
        if not config.disable_aln and config.sep_aln_pooling_mode == "max":
            return embedded.amax(1)
        real = torch.stack([mask, torch.arange(len(mask)) == 0])[:, :, None]
        return (embedded * real).sum(1) / real.sum(1)

    def _level(self, k: int) -> Tensor:
        embed: Any = self.net.lvl_embed
        return (
            blocks.sinusoid(embed, torch.tensor([float(k)]))[0] if self.config.use_timestep_embed else embed.weight[k]
        )

    def _ratio(self, k: int) -> float:
        return min(k, self.config.scales - 2) / (self.config.scales - 1)

    def _sample(self, both: Tensor, noise: Noise, params: SamplingParams, k: int) -> tuple[Tensor, Tensor]:
        """Logits (2, L, V) to indices (L,) and embeddings (L, Z)."""
        ratio, book = self._ratio(k), self.quantizer.embedding.weight
        t = params.guidance * ratio
        logits = (1 + t) * both[0] - t * both[1]
        kept = min(600 if k < 7 else 300, logits.shape[-1])
        logits = logits.masked_fill(logits < logits.topk(kept, dim=-1)[0][..., -1:], -torch.inf)
        if params.top_p > 0:
            ascending, order = logits.sort(dim=-1)
            tail = ascending.softmax(-1).cumsum(-1) <= 1 - params.top_p
            tail[..., -1] = False
            logits = logits.masked_fill(tail.scatter(-1, order, tail), -torch.inf)
        shape = (logits.shape[0], logits.shape[1])
        tokens = (logits.softmax(-1) / noise.draw(TOKEN_DRAW, k, 0, shape)).argmax(-1)
        if not params.more_smooth:
            return tokens, F.embedding(tokens, book)
        gumbel = -noise.draw(GUMBEL, k, 0, shape).log()
        temperature = max(0.27 * (1 - 0.95 * ratio), 0.005)
        return tokens, ((logits * (1 + ratio) + gumbel) / temperature).softmax(-1) @ book

    def _residual(self, hidden: Tensor, tokens: Tensor, noise: Noise, params: SamplingParams) -> Tensor:
        net, k = self.net, self.config.scales - 1
        codes = F.embedding(tokens, self.quantizer.embedding.weight)
        words = F.linear(codes, net.word_embed.weight, net.word_embed.bias)
        condition = blocks.norm(hidden + words, net.decoder_norm.weight, self.config.norm_eps).flatten(0, 1)
        shape = (codes.shape[0], codes.shape[1])
        start = noise.draw(DIFFUSION_START, k, 0, shape)
        fresh = [
            noise.draw(DIFFUSION_STEP, k, j, shape) * params.residual_temperature
            for j in range(self.config.diffusion_steps - 1)
        ]
        return blocks.residual(net.diffloss, condition, params.guidance * self._ratio(k), start, fresh)

    def _contribution(self, maps: Tensor, k: int) -> Tensor:
        """What a scale's map (1, Z, n, n) adds to the latent."""
        if k == self.config.scales - 1:
            return maps
        h = F.interpolate(maps, (self.config.side, self.config.side), mode="bicubic")
        conv: Any = self.quantizer.quant_resi.get_submodule(self.quantizer._conv_of_scale[k])
        ratio = self.quantizer.ratio
        return h * (1 - ratio) + F.conv2d(h, conv.weight, conv.bias, padding=1) * ratio

    def _pixels(self, latent: Tensor) -> Tensor:
        conv: Any = self.tokenizer.post_quant_conv
        net: Any = self.tokenizer.decoder
        x = _conv(net.conv_in, F.conv2d(latent, conv.weight, conv.bias, padding=conv.padding))
        x = _attend(net.mid.attn_1, _residual_block(net.mid.block_1, x))
        x = _residual_block(net.mid.block_2, x)
        for level in reversed(net.up):
            for j, part in enumerate(level.block):
                x = _residual_block(part, x)
                x = _attend(level.attn[j], x) if len(level.attn) else x
            if level.step_name:
                x = _conv(level.upsample.conv, F.interpolate(x, scale_factor=2, mode="nearest"))
        x = _conv(net.conv_out, F.silu(_group_norm(net.norm_out, x)))
        return ((x.clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)[0].permute(1, 2, 0)


def _conv(conv: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias, padding=conv.weight.shape[-1] // 2)


def _group_norm(norm: Any, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, norm.weight, norm.bias, 1e-6)


def _residual_block(net: Any, x: Tensor) -> Tensor:
    h = _conv(net.conv1, F.silu(_group_norm(net.norm1, x)))
    h = _conv(net.conv2, F.silu(_group_norm(net.norm2, h)))
    return (_conv(net.nin_shortcut, x) if net.widens else x) + h


def _attend(net: Any, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    q, k, v = _conv(net.qkv, _group_norm(net.norm, x)).reshape(b, 3, c, h * w).unbind(1)
    weights = (q.transpose(1, 2) @ k / c**0.5).softmax(-1)  # (b, h w, h w)
    return x + _conv(net.proj_out, (v @ weights.transpose(1, 2)).reshape(b, c, h, w))
