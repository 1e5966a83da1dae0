"""How near generated images are to their originals, one by one and as sets."""

import torch
from torch import Tensor


def ssim(drawn: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of images (B, 3, S, S) in [0, 1], (B,)."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # only evaluations need it

    found = structural_similarity_index_measure(drawn, truth, data_range=1.0, reduction="none")
    assert isinstance(found, Tensor)  # noqa: S101 - for the type checker
    return found.reshape(len(drawn))


def sharpness(drawn: Tensor, truth: Tensor) -> Tensor:
    """Gradient energy of images (B, 3, S, S) over their originals', (B,): below 1 they are blurred."""
    return _gradient_energy(drawn) / _gradient_energy(truth).clamp(min=1e-8)


def _gradient_energy(images: Tensor) -> Tensor:
    return images.diff(dim=2).square().mean(dim=(1, 2, 3)) + images.diff(dim=3).square().mean(dim=(1, 2, 3))


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Fréchet distance between two sets of feature vectors (n, d), each taken as a normal distribution.

    |μ1 - μ2|² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½), Dowson and Landau 1982; Heusel et al. 2017 (arXiv 1706.08500) for images.
    """
    means, covariances = zip(*((s.double().mean(0), s.double().T.cov()) for s in (one, other)), strict=True)
    root = _root(covariances[0])
    cross = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp(min=0).sqrt().sum()
    apart = (means[0] - means[1]).square().sum()
    return float(apart + covariances[0].trace() + covariances[1].trace() - 2 * cross)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
