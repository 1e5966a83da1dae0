"""Trains the residual head alone, on cached conditions, after the transformer.

A drawn residual's squared error is up to twice what the condition leaves unexplained of the residuals' variance, so the
head must explain about half of it before drawing residuals is better than leaving them out. A step costs little beside
one of the transformer, and the head goes on improving long after the tokens are learned.
"""

import argparse
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.diffusion import ResidualDiffusion
from model.quantizer import Quantizer
from model.transformer import Transformer
from training.core.device import autocast, to_device
from training.core.loop import EMA, Budget, Intervals, Progress, Run, Stateful
from training.core.optim import Optimizers, rate_share
from training.core.options import count, count_or_zero, positive
from training.transformer.condition_cache import CacheConfig, ConditionCache, cached_conditions
from training.transformer.diffusion_loss import DiffusionLoss, draw_times
from training.transformer.train import RESIDENT_BYTES, TrainingData

ENDS = ("input_proj", "cond_embed", "final_layer", "time_embed")


@dataclass(frozen=True)
class HeadConfig:
    """A step of the head."""

    batch: int = 2048
    """Positions."""
    rate: float = 2e-3
    draws: int = 4
    """Noise draws for each position."""
    decay: float = 0.5
    """Last share of the run over which the learning rate falls."""
    average: float = 0.999
    """Decay of the averaged weights."""


class ResidualTraining:
    """One residual head in training on the rows of a cache."""

    def __init__(self, head: ResidualDiffusion, cache: ConditionCache, config: HeadConfig) -> None:
        self.head, self.config = head, config
        self.device = next(head.parameters()).device
        self.average = EMA(head, config.average)
        self.optimizers = Optimizers(head.net, config.rate, ENDS)
        self.loss = DiffusionLoss().to(self.device)
        self._clean = cache.clean * cache.conditions.shape[1]
        self._conditions, self._residuals = self._resident(cache.conditions), self._resident(cache.residuals)

    def _resident(self, values: NDArray[np.float16]) -> Tensor:
        """Rows as (m·P, width), on the GPU if they fit there."""
        flat = torch.from_numpy(values).flatten(0, 1)
        fits = self.device.type == "cuda" and flat.nbytes <= RESIDENT_BYTES
        return flat.to(self.device) if fits else flat

    def parts(self) -> dict[str, Stateful]:
        return {"head": self.head, "average": self.average, "optimizers": self.optimizers}

    def step(self, now: Progress) -> dict[str, Tensor]:
        """One update; random numbers from torch's own generators."""
        rows = torch.randint(len(self._conditions), (self.config.batch,), device=self._conditions.device)
        condition, residual = self._at(rows)
        draws = self.config.draws
        t = draw_times(draws * len(residual), self.device)
        noise = torch.randn(len(t), residual.shape[1], device=self.device)
        with autocast(self.device):
            loss = self.loss(self.head.net, residual.repeat(draws, 1), condition.repeat(draws, 1), t, noise)
        loss.backward()
        norm = self.optimizers.step(rate_share(now.step, now.fraction, decay=self.config.decay))
        self.average.update(self.head, now.step)
        return {"loss": loss.detach(), "gradient": norm}

    def _at(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Conditions (n, C) and residuals (n, Z) of rows, float32, on the head's device."""
        found = [values[rows] for values in (self._conditions, self._residuals)]
        moved = [values if values.device == self.device else to_device(values, self.device) for values in found]
        return moved[0].float(), moved[1].float()

    @torch.no_grad()
    def measure(self, positions: int = 4096, seed: int = 1) -> dict[str, float]:
        """`drawn_error` of the averaged head on clean positions."""
        rows = torch.randint(self._clean, (positions,), generator=torch.Generator().manual_seed(seed))
        condition, residual = self._at(rows.to(self._conditions.device))
        return drawn_error(cast(ResidualDiffusion, self.average.network), condition, residual, seed)


@torch.no_grad()
def drawn_error(head: ResidualDiffusion, condition: Tensor, residual: Tensor, seed: int = 1) -> dict[str, float]:
    """Mean squared error of residuals drawn without guidance over the true ones' mean square, by temperature.

    condition (n, C), residual (n, Z). 1 is the cost of leaving residuals out. At temperature 0 the figure
    is about the share of the variance that the condition does not explain, at 1 up to twice that share.
    """
    generator = torch.Generator().manual_seed(seed)
    steps, device = len(head.schedule), condition.device
    start = torch.randn(1, *residual.shape, generator=generator).to(device)
    fresh = torch.randn(steps - 1, 1, *residual.shape, generator=generator).to(device)
    both = condition.expand(1, 2, *condition.shape)
    no_guidance = torch.zeros(1, device=device)
    drawn = {t: head.sample(both, no_guidance, start, fresh, t)[0] for t in (1.0, 0.0)}
    size = residual.square().mean()
    return {f"error_{t:g}": float((found - residual).square().mean() / size) for t, found in drawn.items()}


def train_head(
    network: Transformer, cache: ConditionCache, run: Run, budget: Budget, deadline: float, config: HeadConfig
) -> bool:
    """Trains the network's residual head in the run's folder, then puts the averaged head in its place.

    Returns False if it stopped at the deadline, to be resumed by the same call; the network is then unchanged.
    """
    training = ResidualTraining(deepcopy(network.diffloss).train().requires_grad_(True), cache, config)
    run.parts = training.parts()
    if not run.resume():
        run.log(event="head", rows=len(cache), **vars(config), **training.measure())
    every = Intervals(log=100)
    if not run.train(budget, training.step, lambda _: training.measure(), every, deadline):
        return False
    network.diffloss.load_state_dict(training.average.state_dict())
    return True


def add_head_options(parser: argparse.ArgumentParser, steps: int = 4000) -> None:
    """--head-steps, --head-passes, --head-minutes."""
    parser.add_argument(
        "--head-steps",
        type=count_or_zero,
        default=steps,
        help="steps of the residual head alone, after the transformer's (default: %(default)s)",
    )
    parser.add_argument(
        "--head-passes",
        type=count,
        default=CacheConfig.passes,
        help="of each image through the transformer for the head (default: %(default)s)",
    )
    parser.add_argument("--head-minutes", type=positive, help="maximum minutes of the head's steps")


def head_stage(
    network: Transformer,
    quantizer: Quantizer,
    data: TrainingData,
    run: Run,
    options: argparse.Namespace,
    deadline: float,
) -> bool:
    """The head's stage of a run, as the options say; returns whether it has ended."""
    if not options.head_steps:
        return True
    cache = cached_conditions(
        network, quantizer, data, CacheConfig(passes=options.head_passes), run.folder / "head" / "rows"
    )
    budget = Budget(options.head_steps, options.head_minutes)
    return train_head(network, cache, Run(run.folder / "head", {}, run.seed), budget, deadline, HeadConfig())
