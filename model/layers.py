"""The layers that the transformer and the residual diffusion are made of (docs/spec.md, sections 2 to 4)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.rms_norm import Modulation, add_rms_norm, rms_norm
from kernels.silu_mul import silu_mul

ROTARY_BASE = 10000.0
SINUSOID_WIDTH = 256


class RMSNorm(nn.Module):
    """x·rsqrt(mean(x²) + eps), statistics in float32, rounded to x's dtype before the weight is applied."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor, modulation: Modulation | None = None) -> Tensor:
        """x (rows, L, C), or (..., C) without a modulation, to the same shape."""
        return rms_norm(x, self.weight, self.eps, modulation)

    def add(
        self, x: Tensor, update: Tensor, gain: Tensor | None = None, modulation: Modulation | None = None
    ) -> tuple[Tensor, Tensor]:
        """The sum of x and an update, multiplied by its gain if there is one, and the sum's norm."""
        return add_rms_norm(x, update, gain, self.weight, self.eps, modulation)


class LlamaMLP(nn.Module):
    """The gated MLP of the released model, (..., width) to the same; hidden widths are multiples of 256."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = 256 * int((2 * width * ratio / 3 + 255) // 256)
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(silu_mul(self.gate_proj(x), self.up_proj(x)))


class Gpt2MLP(nn.Module):
    """The plain MLP, (..., width) to the same."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = round(width * ratio)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class SinusoidEmbedding(nn.Module):
    """A number's 256-wide sinusoid (cosines first) through Linear, SiLU, Linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(SINUSOID_WIDTH, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, numbers: Tensor) -> Tensor:
        """Numbers (n,) to (n, width), in the weights' dtype."""
        half = SINUSOID_WIDTH // 2
        j = torch.arange(half, device=numbers.device, dtype=torch.float32)
        angles = numbers.float()[:, None] * torch.exp(-math.log(10000) * j / half)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        return self.mlp(waves.to(next(self.parameters()).dtype))


class Rotary:
    """Cosines and signed sines (rows, 1, L, d) of rotary embeddings, and their use."""

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos, self.sin = cos, sin

    @classmethod
    def of_angles(cls, angles: Tensor) -> "Rotary":
        """angles: (rows, L, d). The first half of an element's partners is subtracted, so that half's sines are."""
        first, second = angles.sin().unsqueeze(1).chunk(2, dim=-1)
        return cls(angles.cos().unsqueeze(1), torch.cat([-first, second], dim=-1))

    @classmethod
    def of_positions(cls, positions: Tensor, head_dim: int) -> "Rotary":
        """Context tokens: positions (rows, T), one frequency per pair of elements."""
        angles = positions.float()[:, :, None] * _frequencies(head_dim // 2, positions.device)
        return cls.of_angles(torch.cat([angles, angles], dim=2))

    @classmethod
    def of_map(cls, side: int, latent_side: int, offsets: Tensor, head_dim: int) -> "Rotary":
        """Image tokens of a scale: coordinates stretched to the latent's side, offset (rows,) by the prompt's end.

        The angles are (r, r, c, c) while elements pair up j with j + d/2, so that an element and its partner turn
        with different axes. The weights were trained with this.
        """
        line = torch.arange(side, device=offsets.device, dtype=torch.float32) / side * latent_side
        frequencies = _frequencies(head_dim // 4, offsets.device)
        along = (line[None, :] + offsets.float()[:, None])[:, :, None] * frequencies  # (rows, side, d/4)
        r = along[:, :, None, :].expand(-1, side, side, -1).flatten(1, 2)
        c = along[:, None, :, :].expand(-1, side, side, -1).flatten(1, 2)
        return cls.of_angles(torch.cat([r, r, c, c], dim=2))

    def to(self, dtype: torch.dtype) -> "Rotary":
        """The same in the precision that it is used in, once for all blocks."""
        return Rotary(self.cos.to(dtype), self.sin.to(dtype))

    def apply(self, x: Tensor) -> Tensor:
        """x: (..., rows, H, L, d)."""
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.addcmul(x * cos, torch.cat([second, first], dim=-1), sin)


def _frequencies(count: int, device: torch.device) -> Tensor:
    return ROTARY_BASE ** (-torch.arange(count, device=device, dtype=torch.float32) / count)
