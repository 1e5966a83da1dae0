"""The residual diffusion: samples continuous residual tokens, each independently (docs/spec.md, section 4)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.layer_norm import Gated, layer_norm
from model.layers import SinusoidEmbedding

TRAINING_STEPS = 1000
RESIDUAL_SCALE = 0.6
"""Factor on a sampled residual. The head is trained on targets divided by it."""


class _ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, x: Tensor, gated: Gated | None, active: Tensor) -> tuple[Tensor, Gated]:
        """Adds the previous block's output and computes this block's.

        x (..., W); gated: the previous block's output and its gate; active (..., W): the condition after its SiLU,
        shared by all blocks. Returns the sum, and this block's gate and output.
        """
        shift, scale, gate = self.adaLN_modulation[1](active).chunk(3, dim=-1)
        x, normed = layer_norm(x, gated, (self.in_ln.weight, self.in_ln.bias), shift, scale)
        return x, (gate, self.mlp(normed))


class _FinalLayer(nn.Module):
    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, gated: Gated | None, active: Tensor) -> Tensor:
        """Same arguments as a block's. Returns the output of the net, (..., 2Z)."""
        shift, scale = self.adaLN_modulation[1](active).chunk(2, dim=-1)
        return self.linear(layer_norm(x, gated, None, shift, scale)[1])


class DiffusionNet(nn.Module):
    """Predicts the noise in x and the variance of the next step."""

    def __init__(self, channels: int, condition: int, width: int, depth: int) -> None:
        super().__init__()
        self.time_embed = SinusoidEmbedding(width)
        self.cond_embed = nn.Linear(condition, width)
        self.input_proj = nn.Linear(channels, width)
        self.res_blocks = nn.ModuleList(_ResBlock(width) for _ in range(depth))
        self.final_layer = _FinalLayer(width, 2 * channels)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """x (..., Z), t (1,) or (rows,) steps of the 1000-step schedule, condition (..., C): (ε, v), each (..., Z)."""
        return self.denoise(x, self.time_embed(t) + self.cond_embed(condition))

    def denoise(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, from the sum y (..., W) of the embedded time and condition."""
        h, active = self.input_proj(x.to(y.dtype)), F.silu(y)
        gated: Gated | None = None
        for block in self.res_blocks:
            h, gated = block(h, gated, active)
        noise, width = self.final_layer(h, gated, active).float().chunk(2, dim=-1)
        return noise, width


@dataclass(frozen=True)
class Step:
    """The constants of one denoising step."""

    t: int
    """The step's index in the 1000-step schedule; input of the net."""
    alpha_bar: float
    alpha_bar_before: float
    beta: float
    variance: float
    """Posterior variance. The first entry is replaced by the second, because its logarithm would be infinite."""

    @property
    def from_start(self) -> float:
        return math.sqrt(self.alpha_bar_before) * self.beta / (1 - self.alpha_bar)

    @property
    def from_here(self) -> float:
        return math.sqrt(1 - self.beta) * (1 - self.alpha_bar_before) / (1 - self.alpha_bar)


def cosine_alpha_bars() -> list[float]:
    """ᾱ after each of the 1000 steps."""

    def bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    product, bars = 1.0, []
    for i in range(TRAINING_STEPS):
        product *= 1 - min(1 - bar((i + 1) / TRAINING_STEPS) / bar(i / TRAINING_STEPS), 0.999)
        bars.append(product)
    return bars


def respaced(steps: int) -> list[Step]:
    """The schedule of `steps` kept steps, ascending; sampling runs it backwards. Training uses steps=1000."""
    bars = cosine_alpha_bars()
    kept = [round(i * (TRAINING_STEPS - 1) / (steps - 1)) for i in range(steps)]
    before = [1.0, *(bars[t] for t in kept[:-1])]
    betas = [1 - bars[t] / prior for t, prior in zip(kept, before, strict=True)]
    variances = [beta * (1 - prior) / (1 - bars[t]) for t, prior, beta in zip(kept, before, betas, strict=True)]
    variances[0] = variances[1]
    return [
        Step(t, bars[t], prior, beta, variance)
        for t, prior, beta, variance in zip(kept, before, betas, variances, strict=True)
    ]


class ResidualDiffusion(nn.Module):
    """The head that samples the last scale's residual tokens (docs/spec.md, section 4)."""

    def __init__(self, channels: int, condition: int, width: int, depth: int, steps: int) -> None:
        super().__init__()
        self.net = DiffusionNet(channels, condition, width, depth)
        self.schedule = respaced(steps)

    def sample(
        self,
        condition: Tensor,
        guidance: Tensor,
        start: Tensor,
        fresh: Tensor,
        temperature: float | Tensor = 1.0,
    ) -> Tensor:
        """Samples one residual per token.

        condition (n, branches, L, C): conditional rows, and unconditional ones with guidance; guidance (n,): t; start
        (n, L, Z): standard normal; fresh (steps - 1, n, L, Z): standard normal, times `temperature` (a number or (n,))
        added after each step except the last; (0, ...) adds nothing. Returns (n, L, Z), float32.
        """
        if isinstance(temperature, Tensor):
            fresh = fresh * temperature[:, None, None]
        elif temperature != 1:
            fresh = fresh * temperature
        t = guidance.float()[:, None, None]
        embedded = self.net.cond_embed(condition)
        # Filled on the device: copying a host tensor would synchronise host and device inside an image.
        times = self.net.time_embed(
            torch.cat([torch.full((1,), float(step.t), device=condition.device) for step in self.schedule])
        )
        x = start
        for j, step in enumerate(reversed(self.schedule)):
            noise, width = self.net.denoise(x[:, None], embedded + times[len(self.schedule) - 1 - j])
            guided = noise[:, 0] if noise.shape[1] == 1 else (1 + t) * noise[:, 0] - t * noise[:, 1]
            x = _posterior(x, guided, width[:, 0], step, fresh[j] if j < len(fresh) else None)
        return x * RESIDUAL_SCALE


def _posterior(x: Tensor, noise: Tensor, width: Tensor, step: Step, fresh: Tensor | None) -> Tensor:
    start = (x / math.sqrt(step.alpha_bar) - math.sqrt(1 / step.alpha_bar - 1) * noise).clamp(-1, 1)
    mean = step.from_start * start + step.from_here * x
    if fresh is None:
        return mean
    share = (width + 1) / 2
    log_variance = share * math.log(step.beta) + (1 - share) * math.log(step.variance)
    return mean + (0.5 * log_variance).exp() * fresh
