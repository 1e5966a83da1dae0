"""The hybrid tokenizer: images to tokens of every scale plus residuals, and latents to images."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.autoencoder import Decoder, Encoder
from model.config import TokenizerConfig
from model.errors import ModelError
from model.quantizer import Quantizer, downsample


@dataclass(frozen=True)
class Encoding:
    """A batch of images as tokens."""

    features: Tensor
    """(B, Z, N, N): the continuous latent."""
    indices: list[Tensor]
    """Per scale k, (B, n_k²): codebook indices."""
    last_scale_features: Tensor
    """(B, Z, N, N): features minus all scales except the last. Minus the last scale's codes, this is the residual."""


class HybridTokenizer(nn.Module):
    """State-dict keys are the released ones without their prefix `vae.`."""

    PARTS = ("encoder", "decoder", "quant_conv", "post_quant_conv", "quantize")

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        kernel = config.quant_conv_ks
        self.quant_conv = nn.Conv2d(config.z_channels, config.z_channels, kernel, padding=kernel // 2)
        self.post_quant_conv = nn.Conv2d(config.z_channels, config.z_channels, kernel, padding=kernel // 2)
        self.quantize = Quantizer(config)
        self.engine: Callable[[Tensor], Tensor] | None = None
        """Decodes instead of torch (model.engines): latents (B, Z, n, n) to images."""

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1] to the continuous latent (B, Z, N, N)."""
        return self.quant_conv(self.encoder(images))

    def encode(self, images: Tensor) -> Encoding:
        """Images (B, 3, S, S) in [-1, 1], S the checkpoint's image side, to tokens. Raises ModelError."""
        side = self.config.image_side
        if images.ndim != 4 or images.shape[1:] != (3, side, side):
            raise ModelError(f"images: shape {tuple(images.shape)}: expected (B, 3, {side}, {side})")
        return self.quantise(self.features(images).float())

    @torch.no_grad()
    def quantise(self, features: Tensor) -> Encoding:
        """Features (B, Z, N, N), float32, to an Encoding."""
        quantize, last = self.quantize, self.config.scales - 1
        b, z = features.shape[:2]
        latent = torch.zeros_like(features)
        indices: list[Tensor] = []
        for k, n in enumerate(self.config.v_patch_nums):
            remaining = features - latent
            maps = remaining if k == last else downsample(remaining, n)
            found = quantize.nearest(maps.permute(0, 2, 3, 1).reshape(-1, z)).reshape(b, n * n)
            indices.append(found)
            if k < last:
                latent = quantize.accumulate(latent, k, quantize.maps_of(found))
        return Encoding(features, indices, features - latent)

    def latent_of(self, indices: list[Tensor]) -> Tensor:
        """The discrete latent f̂ (B, Z, N, N): the sum over the indices of all scales."""
        book = self.quantize.embedding.weight
        latent = book.new_zeros(len(indices[0]), self.config.z_channels, self.config.side, self.config.side)
        for k, found in enumerate(indices):
            latent = self.quantize.accumulate(latent, k, self.quantize.maps_of(found))
        return latent

    def decode_raw(self, latent: Tensor) -> Tensor:
        """Latents (B, Z, n, n) to images (B, 3, f n, f n), nominally in [-1, 1], not clamped. Raises ModelError."""
        if latent.ndim != 4 or latent.shape[1] != self.config.z_channels:
            raise ModelError(f"latent: shape {tuple(latent.shape)}: expected (B, {self.config.z_channels}, n, n)")
        return self.engine(latent) if self.engine else self.decoder(self.post_quant_conv(latent))

    def decode(self, latent: Tensor) -> Tensor:
        """Latents (B, Z, n, n) to images (B, 3, f n, f n), float32 in [0, 1]; NaN for a non-finite output."""
        weight = self.post_quant_conv.weight
        raw = self.decode_raw(latent.to(weight.dtype)).float()
        raw = raw.masked_fill(raw.isinf(), torch.nan)  # clamp would hide infinity
        return (raw.clamp(-1, 1) + 1) / 2
