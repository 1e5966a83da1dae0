"""The residual diffusion's loss: predicted noise, and the variance of the reverse step (docs/spec.md, 4 and 9).

Nichol and Dhariwal 2021, arXiv 2102.09672: the variational part trains the variance alone.
"""

import math

import torch
from torch import Tensor, nn

from model.diffusion import RESIDUAL_SCALE, TRAINING_STEPS, DiffusionNet, respaced

LATE, LATE_SHARE = 0.4, 0.5
"""Half of the training steps t are drawn from the last 40% of denoising. Residuals have a standard deviation of about
0.3 in units of the noise, so at earlier steps x holds almost nothing of them and the condition hardly shows in the
loss."""


def draw_times(count: int, device: torch.device) -> Tensor:
    """(count,): stratified random steps t of the 1000, in random order."""
    order = torch.randperm(count, device=device)
    u = ((order + torch.rand(count, device=device)) / count).clamp(max=1 - 1e-6)
    late = LATE * u / LATE_SHARE
    early = (u - LATE_SHARE) / (1 - LATE_SHARE)
    return (TRAINING_STEPS * torch.where(u < LATE_SHARE, late, early)).long()


class DiffusionLoss(nn.Module):
    """The 1000-step schedule as tables."""

    def __init__(self) -> None:
        super().__init__()
        steps = respaced(TRAINING_STEPS)
        rows = [[step.alpha_bar, math.log(step.beta), math.log(step.variance), step.from_start] for step in steps]
        self.table: Tensor
        self.register_buffer("table", torch.tensor(rows, dtype=torch.float32), persistent=False)

    def forward(self, net: DiffusionNet, residual: Tensor, condition: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """residual (n, Z), condition (n, C), steps t (n,), standard normal noise (n, Z): the mean loss, a scalar."""
        bar, log_beta, log_variance, from_start = self.table[t].unsqueeze(-1).unbind(1)
        start = residual / RESIDUAL_SCALE
        x = bar.sqrt() * start + (1 - bar).sqrt() * noise
        guess, width = net(x, t, condition)
        square = (guess - noise).square().mean()
        share = (width + 1) / 2
        log_width = share * log_beta + (1 - share) * log_variance
        guessed_start = (x - (1 - bar).sqrt() * guess.detach()) / bar.sqrt()
        apart = from_start * (start - guessed_start)
        bits = 0.5 * (
            log_width - log_variance - 1 + (log_variance - log_width).exp() + apart.square() * (-log_width).exp()
        )
        # The step from t = 0 is taken without noise: its variance is never used.
        return square + (bits * (t > 0)[:, None]).mean() / math.log(2)
