"""The residual diffusion's loss: predicting the noise, and how wide the way back is (spec, sections 4 and 9).

Nichol and Dhariwal 2021, arXiv 2102.09672: the second part teaches the width alone.
"""

import math

import torch
from torch import Tensor, nn

from model.diffusion import RESIDUAL_SCALE, TRAINING_STEPS, DiffusionNet, respaced


class DiffusionLoss(nn.Module):
    """The 1000-step schedule as tables."""

    def __init__(self) -> None:
        super().__init__()
        steps = respaced(TRAINING_STEPS)
        rows = [[step.alpha_bar, math.log(step.beta), math.log(step.variance), step.from_start] for step in steps]
        self.table: Tensor
        self.register_buffer("table", torch.tensor(rows, dtype=torch.float32), persistent=False)

    def forward(self, net: DiffusionNet, residual: Tensor, condition: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """residual (n, Z), condition (n, C), steps t (n,), standard normal noise (n, Z): the mean loss, a number."""
        bar, log_beta, log_variance, from_start = self.table[t].unsqueeze(-1).unbind(1)
        start = residual / RESIDUAL_SCALE
        x = bar.sqrt() * start + (1 - bar).sqrt() * noise
        guess, width = net(x, t, condition)
        square = (guess - noise).square().mean()
        share = (width + 1) / 2
        mine = share * log_beta + (1 - share) * log_variance
        guessed_start = (x - (1 - bar).sqrt() * guess.detach()) / bar.sqrt()
        apart = from_start * (start - guessed_start)
        bits = 0.5 * (mine - log_variance - 1 + (log_variance - mine).exp() + apart.square() * (-mine).exp())
        # The step from t = 0 is taken without noise: its width is never used.
        return square + (bits * (t > 0)[:, None]).mean() / math.log(2)
