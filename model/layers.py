"""Layers of the transformer and the residual diffusion (docs/spec.md, sections 2 to 4)."""

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
        """Returns x + gain·update (gain 1 if None) and the norm of that sum."""
        return add_rms_norm(x, update, gain, self.weight, self.eps, modulation)


class LlamaMLP(nn.Module):
    """SwiGLU MLP, (..., width) to the same shape. Hidden widths are multiples of 256."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = 256 * int((2 * width * ratio / 3 + 255) // 256)
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)
        self.gate_and_up: Tensor | None = None
        """Both weights (2 * hidden, width), of which the layers' own are views, after `join`."""

    def join(self) -> None:
        """Lays the weights of gate and up beside each other: one matrix product then computes both."""
        both = (self.gate_proj.weight, self.up_proj.weight)
        self.gate_and_up = torch.cat([weight.detach() for weight in both])
        for weight, part in zip(both, self.gate_and_up.chunk(2), strict=True):
            weight.data = part

    def forward(self, x: Tensor) -> Tensor:
        if self.gate_and_up is not None:
            return self.down_proj(silu_mul(*F.linear(x, self.gate_and_up).chunk(2, dim=-1)))
        return self.down_proj(silu_mul(self.gate_proj(x), self.up_proj(x)))


class Gpt2MLP(nn.Module):
    """MLP with a tanh GELU, (..., width) to the same shape."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = round(width * ratio)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class SinusoidEmbedding(nn.Module):
    """The 256-wide sinusoidal embedding of a number (cosines first), then Linear, SiLU, Linear."""

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
    """Rotary position embedding: cosines and signed sines, each (rows, 1, L, d)."""

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos, self.sin = cos, sin

    @classmethod
    def of_angles(cls, angles: Tensor) -> "Rotary":
        """angles: (rows, L, d). Rotate-half convention: sines of the first half are negated."""
        first, second = angles.sin().unsqueeze(1).chunk(2, dim=-1)
        return cls(angles.cos().unsqueeze(1), torch.cat([-first, second], dim=-1))

    @classmethod
    def of_positions(cls, positions: Tensor, head_dim: int) -> "Rotary":
        """For context tokens: positions (rows, T), one frequency per pair of elements."""
        angles = positions.float()[:, :, None] * _frequencies(head_dim // 2, positions.device)
        return cls.of_angles(torch.cat([angles, angles], dim=2))

    @classmethod
    def of_map(cls, side: int, latent_side: int, offsets: Tensor, head_dim: int) -> "Rotary":
        """For the image tokens of a scale: coordinates scaled to the latent's side, plus offsets (rows,).

        The angles are (r, r, c, c), but element j pairs with j + d/2. An element and its partner therefore rotate by
        different axes. The released weights were trained this way.
        """
        line = torch.arange(side, device=offsets.device, dtype=torch.float32) / side * latent_side
        frequencies = _frequencies(head_dim // 4, offsets.device)
        along = (line[None, :] + offsets.float()[:, None])[:, :, None] * frequencies  # (rows, side, d/4)
        r = along[:, :, None, :].expand(-1, side, side, -1).flatten(1, 2)
        c = along[:, None, :, :].expand(-1, side, side, -1).flatten(1, 2)
        return cls.of_angles(torch.cat([r, r, c, c], dim=2))

    def to(self, dtype: torch.dtype) -> "Rotary":
        """A copy in `dtype`, so that blocks need not convert it."""
        return Rotary(self.cos.to(dtype), self.sin.to(dtype))

    def apply(self, x: Tensor) -> Tensor:
        """Rotates x (..., rows, H, L, d)."""
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.addcmul(x * cos, torch.cat([second, first], dim=-1), sin)


def _frequencies(count: int, device: torch.device) -> Tensor:
    return ROTARY_BASE ** (-torch.arange(count, device=device, dtype=torch.float32) / count)
