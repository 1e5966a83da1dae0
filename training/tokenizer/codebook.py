"""Codebook training: running means of the vectors assigned to each row, and revival of dead rows."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.quantizer import Quantizer, downsample

DEAD = 0.02  # a row with fewer assignments a step than this, on average, is dead


@dataclass(frozen=True)
class Quantised:
    """A batch of features through the quantizer, with gradients for φ and for the features."""

    latent: Tensor
    """(B, Z, N, N): f̂ of all scales."""
    loss: Tensor
    """Squared error of f̂ after each scale over the features' variance between images: trains φ and pulls the features
    towards the codes."""
    vectors: Tensor
    """(n, Z): all vectors that were quantised, detached."""
    indices: Tensor
    """(n,): their codebook rows."""


def quantise(quantizer: Quantizer, features: Tensor, commitment: float) -> Quantised:
    """Features (B, Z, N, N), float32, of at least two images: the loss is divided by the variance between them.

    `commitment` weighs the commitment loss against φ's own.
    """
    if len(features) < 2:
        raise ValueError("a batch of 1: codes are learned from differences between images: 2 or more")
    last = len(quantizer.sides) - 1
    latent = torch.zeros_like(features)
    loss = features.new_zeros(())
    vectors, indices = [], []
    for k, n in enumerate(quantizer.sides):
        remaining = (features - latent).detach()
        maps = remaining if k == last else downsample(remaining, n)
        rows = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
        with torch.no_grad():
            found = quantizer.nearest(rows)
        vectors.append(rows)
        indices.append(found)
        codes = quantizer.maps_of(found.view(len(features), -1)).detach()
        latent = quantizer.accumulate(latent, k, codes)
        loss = loss + F.mse_loss(latent, features.detach()) + commitment * F.mse_loss(features, latent.detach())
    loss = loss / (last + 1) / features.detach().var(dim=0).mean().clamp(min=1e-8)
    return Quantised(latent, loss, torch.cat(vectors), torch.cat(indices))


class CodebookMeans(nn.Module):
    """Running counts and sums per row; the codebook is their quotient."""

    def __init__(self, quantizer: Quantizer, decay: float = 0.98) -> None:
        super().__init__()
        book = quantizer.embedding.weight.detach()
        self.decay = decay
        self.counts: Tensor
        self.sums: Tensor
        self.register_buffer("counts", torch.zeros(len(book)))  # no row has assignments yet: all are dead
        self.register_buffer("sums", torch.zeros_like(book))

    @torch.no_grad()
    def update(self, quantizer: Quantizer, batch: Quantised) -> None:
        counts = torch.zeros_like(self.counts).index_add_(0, batch.indices, torch.ones_like(batch.vectors[:, 0]))
        sums = torch.zeros_like(self.sums).index_add_(0, batch.indices, batch.vectors)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        alive = self.counts > 1e-6
        means = self.sums / self.counts.clamp(min=1e-6)[:, None]
        quantizer.embedding.weight.copy_(torch.where(alive[:, None], means, quantizer.embedding.weight))

    @torch.no_grad()
    def revive(self, quantizer: Quantizer, batch: Quantised) -> int:
        """Replaces dead rows by vectors of this batch, at most half of its number; returns how many."""
        dead = (self.counts < DEAD).nonzero().flatten()[: len(batch.vectors) // 2]
        if len(dead) == 0:
            return 0
        picked = batch.vectors[torch.randperm(len(batch.vectors), device=batch.vectors.device)[: len(dead)]]
        quantizer.embedding.weight[dead] = picked
        self.counts[dead] = 2 * DEAD
        self.sums[dead] = 2 * DEAD * picked
        return len(dead)

    def alive(self) -> Tensor:
        """How many rows are in use, a number."""
        return (self.counts >= DEAD).sum()
