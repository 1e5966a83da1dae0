"""All scales of many pictures in one pass: what the transformer predicts when it is shown the true tokens before.

Gives the logits that generation would compute step by step from the same tokens (spec, sections 3 and 9). Knows no
losses.
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

# Tokens up to which a CPU attends by plain products: they hold all pairs' scores, at the released size 9 GB a block.
PLAIN_AT_MOST = 2048


@dataclass(frozen=True)
class Predicted:
    """What the transformer makes of a batch, for all L = Σ n_k² tokens in order."""

    logits: Tensor
    """(B, L, V), float32."""
    last_hidden: Tensor
    """(B, N², C): the last scale's hidden states, of which the diffusion's condition is made."""


class TeacherForcing(nn.Module):
    """A transformer over whole pictures. Only its `transformer` has weights."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer
        self.allowed: Tensor
        self.register_buffer("allowed", block_causal(transformer.config), persistent=False)

    def forward(self, conditioning: Conditioning, maps: list[Tensor]) -> Predicted:
        """Conditioning of B rows; maps: what each scale but the first reads, (B, Z, n_k, n_k)."""
        net, config = self.transformer, self.transformer.config
        embedded = net.embed_context(conditioning.context)
        pooled = net.pool(embedded, conditioning.mask)
        parts = [embedded + net.level(0), *(net.embed_map(found, k + 1) for k, found in enumerate(maps))]
        # Float32, so that what the blocks add is not rounded away under autocast.
        x = torch.cat(parts, 1).float()
        rotary = self._rotary(conditioning.positions)
        for block in net.blocks:
            scale = block.attn.scale  # type: ignore[union-attr]
            x = block(x, pooled.block, rotary, lambda q, k, v, scale=scale: self._attend(q, k, v, scale))
        predicted = x[:, config.context_token - 1 :]  # the last context slot predicts the first scale
        return Predicted(net.logits(predicted, pooled.head), x[:, -(config.side**2) :])

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        if q.is_cuda or q.shape[2] > PLAIN_AT_MOST:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.allowed, scale=scale)
        # On a CPU torch's fused attention makes short steps a quarter longer on the way back; plain products do not.
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
    """(T + L - 1, T + L - 1), True where a row may look: at its own scale and all before, the context being scale 0."""
    lengths = [config.context_token, *(n * n for n in config.patch_nums[1:])]
    scale = torch.cat([torch.full((length,), k) for k, length in enumerate(lengths)])
    return scale[:, None] >= scale[None, :]


@torch.no_grad()
def maps_of(quantizer: Quantizer, indices: Tensor) -> list[Tensor]:
    """Tokens of all scales (B, L) to what each scale but the first reads, (B, Z, n_k, n_k)."""
    sides = quantizer.sides
    latent = torch.zeros(len(indices), quantizer.embedding.embedding_dim, sides[-1], sides[-1], device=indices.device)
    maps = []
    for k, found in enumerate(indices.split([n * n for n in sides], 1)[:-1]):
        latent = quantizer.accumulate(latent, k, quantizer.maps_of(found))
        maps.append(quantizer.next_map(latent, k))
    return maps


def drop_conditions(conditioning: Conditioning, dropped: Tensor) -> Conditioning:
    """Conditioning of B rows, those where `dropped` (B,) made the unconditional one: zeros, one slot, position 0."""
    first = torch.zeros_like(conditioning.mask)
    first[:, 0] = True
    return Conditioning(
        conditioning.context.masked_fill(dropped[:, None, None], 0.0),
        torch.where(dropped[:, None], first, conditioning.mask),
        conditioning.positions.masked_fill(dropped[:, None], 0),
    )
