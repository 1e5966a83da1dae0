"""The residual quantizer: a codebook, and the sum over scales that forms the latent (docs/spec.md, section 5)."""

import torch.nn.functional as F
from torch import Tensor, nn

from kernels.bicubic import upsample
from model.config import TokenizerConfig


def downsample(maps: Tensor, side: int) -> Tensor:
    """(B, Z, n, n) to (B, Z, side, side), area average."""
    return F.interpolate(maps, size=(side, side), mode="area")


class _SharedConvs(nn.Module):
    """K convolutions. A scale uses the one with the nearest tick."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.qresi_ls = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(count))


class _OneConv(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qresi = nn.Conv2d(width, width, 3, padding=1)


class Quantizer(nn.Module):
    """Codebook (V, Z) and the convolutions φ. Latents (B, Z, N, N) are float32."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.sides = config.v_patch_nums
        self.ratio = abs(config.quant_resi)
        self.embedding = nn.Embedding(config.vocab_size, config.z_channels)
        self.quant_resi: nn.Module
        if config.share_quant_resi == 1:
            self.quant_resi = _OneConv(config.z_channels)
            self._convs = ["qresi"]
        elif config.share_quant_resi == 0:
            self.quant_resi = nn.ModuleList(
                nn.Conv2d(config.z_channels, config.z_channels, 3, padding=1) for _ in self.sides
            )
            self._convs = [str(k) for k in range(len(self.sides))]
        else:
            self.quant_resi = _SharedConvs(config.z_channels, config.share_quant_resi)
            self._convs = [f"qresi_ls.{i}" for i in range(config.share_quant_resi)]
        self._conv_of_scale = [self._nearest_conv(k) for k in range(len(self.sides))]

    def _nearest_conv(self, k: int) -> str:
        # The released code uses argmin over float64 ticks. On a tie it takes the first, and so does min().
        count = len(self._convs)
        first, last = (1 / 12, 11 / 12) if count == 4 else (1 / (2 * count), 1 - 1 / (2 * count))
        step = (last - first) / max(count - 1, 1)
        at = k / (len(self.sides) - 1)
        return self._convs[min(range(count), key=lambda i: abs(first + i * step - at))]

    @property
    def side(self) -> int:
        """N, the side of the latent."""
        return self.sides[-1]

    def phi(self, k: int, maps: Tensor) -> Tensor:
        """(1-ρ)·h + ρ·conv(h), with the convolution of scale k."""
        conv = self.quant_resi.get_submodule(self._conv_of_scale[k])
        return maps * (1 - self.ratio) + conv(maps) * self.ratio

    def nearest(self, vectors: Tensor) -> Tensor:
        """Indices (n,) of the codebook rows with the min Euclidean distance to vectors (n, Z)."""
        book = self.embedding.weight
        distances = vectors.square().sum(1, keepdim=True) + book.square().sum(1) - 2 * vectors @ book.T
        return distances.argmin(1)

    def maps_of(self, indices: Tensor) -> Tensor:
        """Indices (B, n²) to code maps (B, Z, n, n)."""
        return self.as_map(self.embedding(indices))

    @staticmethod
    def as_map(tokens: Tensor) -> Tensor:
        """Rows (B, n², Z) to maps (B, Z, n, n)."""
        b, length, z = tokens.shape
        n = round(length**0.5)
        return tokens.transpose(1, 2).reshape(b, z, n, n)

    def accumulate(self, latent: Tensor, k: int, maps: Tensor) -> Tensor:
        """f̂ (B, Z, N, N) plus scale k's embeddings (B, Z, n_k, n_k); the last scale skips φ."""
        if k == len(self.sides) - 1:
            return latent + maps
        return latent + self.phi(k, upsample(maps, self.side))

    def next_map(self, latent: Tensor, k: int) -> Tensor:
        """The transformer's input at scale k+1: f̂ area-averaged to (B, Z, n_{k+1}, n_{k+1})."""
        return downsample(latent, self.sides[k + 1])
