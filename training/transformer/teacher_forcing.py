"""Teacher forcing: all scales of many images in one pass, each predicted from the true tokens of those before.

Gives the logits that generation computes scale by scale from the same tokens (docs/spec.md, sections 3 and 9).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import TransformerConfig
from model.generation import Conditioning
from model.layers import Rotary
from model.quantizer import Quantizer
from model.transformer import Transformer

# Up to so many tokens a CPU attends by plain products, which hold all scores: at the released size 9 GB a block.
MAX_PLAIN_TOKENS = 2048


@dataclass(frozen=True)
class Predicted:
    """The transformer's output for a batch, for all L = Σ n_k² tokens in order."""

    logits: Tensor
    """(B, L, V), float32."""
    last_hidden: Tensor
    """(B, N², C): the last scale's hidden states, from which the diffusion's condition is computed."""


class TeacherForcing(nn.Module):
    """A transformer over whole images. Only its `transformer` has weights."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer
        self.allowed: Tensor
        self.register_buffer("allowed", block_causal(transformer.config), persistent=False)

    def forward(self, conditioning: Conditioning, maps: list[Tensor]) -> Predicted:
        """Conditioning of B rows; maps: the inputs of each scale but the first, (B, Z, n_k, n_k)."""
        net, config = self.transformer, self.transformer.config
        embedded = net.embed_context(conditioning.context)
        pooled = net.pool(embedded, conditioning.mask)
        parts = [embedded + net.level(0), *(net.embed_map(found, k + 1) for k, found in enumerate(maps))]
        # Float32, so that autocast does not round away what the blocks add.
        x = torch.cat(parts, 1).float()
        rotary = self._rotary(conditioning.positions)
        x = net.through_blocks(x, pooled.block, rotary, lambda _: self._attend)
        predicted = x[:, config.context_token - 1 :]  # the last context slot predicts the first scale
        return Predicted(net.logits(predicted, pooled.head), x[:, -(config.side**2) :])

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = self.transformer.config.attention_scale
        if q.is_cuda or q.shape[2] > MAX_PLAIN_TOKENS:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.allowed, scale=scale)
        # On a CPU torch's fused attention makes the backward pass of short sequences a quarter slower.
        scores = (q @ k.mT).float() * scale
        return scores.masked_fill(~self.allowed, float("-inf")).softmax(-1).to(v.dtype) @ v

    def _rotary(self, positions: Tensor) -> Rotary:
        net, config = self.transformer, self.transformer.config
        parts = [net.rotary_context(positions)]
        parts += [net.rotary_map(k, positions[:, -1]) for k in range(1, config.scales)]
        joined = parts[0]
        joined.cos = torch.cat([part.cos for part in parts], 2)
        joined.sin = torch.cat([part.sin for part in parts], 2)
        return joined


def block_causal(config: TransformerConfig) -> Tensor:
    """(T + L - 1, T + L - 1), True where a row attends: to its own scale and all before; the context is scale 0."""
    lengths = [config.context_token, *(n * n for n in config.patch_nums[1:])]
    scale = torch.cat([torch.full((length,), k) for k, length in enumerate(lengths)])
    return scale[:, None] >= scale[None, :]


@torch.no_grad()
def maps_of(quantizer: Quantizer, indices: Tensor) -> list[Tensor]:
    """Tokens of all scales (B, L) to the inputs of each scale but the first, (B, Z, n_k, n_k)."""
    sides = quantizer.sides
    latent = torch.zeros(len(indices), quantizer.embedding.embedding_dim, sides[-1], sides[-1], device=indices.device)
    maps = []
    for k, found in enumerate(indices.split([n * n for n in sides], 1)[:-1]):
        latent = quantizer.accumulate(latent, k, quantizer.maps_of(found))
        maps.append(quantizer.next_map(latent, k))
    return maps


def exchange_tokens(indices: Tensor, share: Tensor) -> Tensor:
    """Tokens (B, L), of which about `share` (B, 1) of each row are exchanged for the next row's."""
    exchanged = torch.rand(indices.shape, device=indices.device) < share
    return torch.where(exchanged, indices.roll(1, 0), indices)


def drop_conditions(conditioning: Conditioning, dropped: Tensor) -> Conditioning:
    """Conditioning of B rows; where `dropped` (B,), the unconditional one: zeros, one slot, position 0."""
    first = torch.zeros_like(conditioning.mask)
    first[:, 0] = True
    return Conditioning(
        conditioning.context.masked_fill(dropped[:, None, None], 0.0),
        torch.where(dropped[:, None], first, conditioning.mask),
        conditioning.positions.masked_fill(dropped[:, None], 0),
    )
