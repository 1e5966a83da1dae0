"""A fixed image embedding: colours and edges on a grid, whitened over a data set.

It answers which image of the data set is most similar to a given one; `recall` measures how reliably.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

GRID, FINE, BINS = 8, 48, 8
DIMENSIONS = 192


def features(pixels: NDArray[np.uint8], batch: int = 256) -> Tensor:
    """uint8 (n, side, side, 3) -> float32 (n, F): colours on an 8x8 grid, edges by direction on an 8x8 grid."""
    parts = []
    for start in range(0, len(pixels), batch):
        rows = torch.from_numpy(np.ascontiguousarray(pixels[start : start + batch])).permute(0, 3, 1, 2).float() / 255
        small = F.adaptive_avg_pool2d(rows, FINE)
        light = small.mean(1, keepdim=True)
        colour = torch.cat([light, small[:, :1] - small[:, 1:2], small[:, 2:] - small[:, :2].mean(1, keepdim=True)], 1)
        where = F.adaptive_avg_pool2d(colour, GRID).flatten(1)
        parts.append(torch.cat([2 * where, 4 * _edges(colour).flatten(1)], dim=1))
    return torch.cat(parts)


def _edges(colour: Tensor) -> Tensor:
    """(n, 3, H, W) -> (n, BINS, GRID, GRID): strength of edges in each direction, soft in direction and place."""
    padded = F.pad(colour, (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]).sum(1)
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]).sum(1)
    strength = (across.square() + down.square()).sqrt()
    angle = torch.atan2(down, across)
    centres = torch.arange(BINS) * (2 * torch.pi / BINS)
    share = torch.cos(angle[:, None] - centres[None, :, None, None]).clamp(min=0).pow(4)
    return F.adaptive_avg_pool2d(share * strength[:, None].clamp(max=0.5), GRID)


@dataclass(frozen=True)
class ImageEmbedding:
    """The embedding fitted to a data set, and the data set's vectors."""

    mean: Tensor
    directions: Tensor
    known: Tensor

    @classmethod
    def fit(cls, pixels: NDArray[np.uint8], dimensions: int = DIMENSIONS) -> "ImageEmbedding":
        """Whitens the data set's features along their principal directions; a floor on the variances limits noise."""
        found = features(pixels)
        mean = found.mean(0)
        centred = found - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        values, vectors = values.flip(0)[:dimensions], vectors.flip(1)[:, :dimensions]
        directions = vectors / (values + 0.05 * values.mean()).sqrt()
        return cls(mean, directions, F.normalize(centred @ directions, dim=-1))

    def nearest(self, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """uint8 (n, side, side, 3) of any side -> the index of the most similar image of the data set, (n,)."""
        own = F.normalize(self.embed(pixels), dim=-1)
        return (own @ self.known.T).argmax(1).numpy()

    def embed(self, pixels: NDArray[np.uint8]) -> Tensor:
        """uint8 (n, side, side, 3) of any side -> whitened features, float32 (n, d)."""
        return (features(pixels) - self.mean) @ self.directions


def augmented(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lightly changed copies: shifted by up to 3%, scaled by up to 5%, brightness by up to 8%, blur, noise."""
    rows = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
    n, side = len(rows), rows.shape[-1]
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = torch.from_numpy(1 + 0.05 * rng.uniform(-1, 1, n)).float()
    theta[:, :, 2] = torch.from_numpy(0.06 * rng.uniform(-1, 1, (n, 2))).float()
    grid = F.affine_grid(theta, list(rows.shape), align_corners=False)
    moved = 1 - F.grid_sample(1 - rows, grid, align_corners=False)  # outside is white
    blurred = F.interpolate(F.adaptive_avg_pool2d(moved, side // 2), size=side, mode="bilinear")
    light = torch.from_numpy(1 + 0.08 * rng.uniform(-1, 1, (n, 1, 1, 1))).float()
    noise = torch.from_numpy(0.03 * rng.standard_normal(blurred.shape)).float()
    changed = (blurred * light + noise).clamp(0, 1) * 255
    return changed.byte().permute(0, 2, 3, 1).numpy()


def recall(
    embedding: ImageEmbedding, pixels: NDArray[np.uint8], codes: list[str], count: int = 1000, seed: int = 0
) -> float:
    """How often the nearest image to a slightly changed original shows the same concept, in any style."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(codes), min(count, len(codes)), replace=False))
    found = embedding.nearest(augmented(pixels[rows], rng))
    return float(np.mean([codes[a] == codes[b] for a, b in zip(rows, found, strict=True)]))
