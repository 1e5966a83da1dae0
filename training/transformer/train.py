"""Trains the transformer with its residual head on images' tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.generation import Conditioning
from model.quantizer import Quantizer
from model.transformer import Block, Transformer
from training.core.activation_checkpointing import checkpoint_activations
from training.core.device import autocast, conditioning_to, to_device
from training.core.images import PIXELS, batch_size
from training.core.loop import EMA, Progress, RunError, Stateful
from training.core.optim import Optimizers, rate_share
from training.data.text_cache import TextCache
from training.data.token_cache import TokenCache
from training.transformer.diffusion_loss import DiffusionLoss, draw_times
from training.transformer.teacher_forcing import (
    Predicted,
    TeacherForcing,
    drop_conditions,
    exchange_tokens,
    maps_of,
)

ENDS = ("word_embed", "context_embed", "lvl_embed", "head", "input_proj", "cond_embed", "final_layer", "time_embed")
RESIDENT_BYTES = 16 * 10**9
"""Training data up to this size moves to the GPU whole, so that no step waits for the host."""


@dataclass(frozen=True)
class TrainConfig:
    """A step of the transformer."""

    batch: int = 32
    rate: float = 2e-3
    dropped: float = 0.1
    """Share of rows without a prompt: the unconditional branch of guidance."""
    corrupted: float = 0.3
    """Up to this share of the input tokens is exchanged for other images': sampled tokens have errors too."""
    max_positions: int = 1536
    """Of an image, whose residuals are trained on in a step."""
    draws: int = 4
    """Noise draws for each of those."""
    context_noise: float = 0.1
    """Standard normal noise on the conditioning, as a share of its size: covers prompts near the trained ones."""
    residual_weight: float = 0.5
    """Weight of the diffusion's loss relative to the tokens' cross-entropy."""
    regression_weight: float = 1.0
    """Weight of the regression loss, a linear probe's share of unexplained variance of the residuals."""
    head_rate: float = 1.0
    """Learning rate of the residual head, as a multiple of `rate`."""
    scenes: float = 0.15
    """Share of rows that are composed scenes, if there are any."""
    compiled: bool = False
    checkpointed: bool = False
    """Activation checkpointing of the blocks."""


@dataclass(frozen=True)
class TrainingData:
    """n images as tokens with their captions; the last `scenes` of them are composed."""

    tokens: TokenCache
    text: TextCache
    scenes: int = 0

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.text.captions):
            raise ValueError(f"{len(self.tokens)} images but captions of {len(self.text.captions)}")

    @property
    def singles(self) -> int:
        """Images that are no scenes."""
        return len(self.tokens) - self.scenes

    def resident(self, device: torch.device) -> "TrainingData":
        """The same on the GPU, if it fits there; else itself."""
        tensors = (self.tokens.indices, self.tokens.rest, self.text.context, self.text.mask)
        if device.type != "cuda" or sum(tensor.nbytes for tensor in tensors) > RESIDENT_BYTES:
            return self
        indices, rest, context, mask = (tensor.to(device) for tensor in tensors)
        return TrainingData(TokenCache(indices, rest), TextCache(self.text.captions, context, mask), self.scenes)


class TransformerTraining:
    """One transformer in training."""

    def __init__(self, network: Transformer, quantizer: Quantizer, data: TrainingData, config: TrainConfig) -> None:
        self.device = network.word_embed.weight.device
        self.network, self.quantizer, self.config = network, quantizer.requires_grad_(False), config
        self.data = data.resident(self.device)
        self.average = EMA(network)
        if config.checkpointed:
            checkpoint_activations(network, (Block,))
        self.optimizers = Optimizers(network, config.rate, ENDS, rates={"diffloss": config.rate * config.head_rate})
        self.teacher = TeacherForcing(network).to(self.device)
        self._predict = torch.compile(self.teacher) if config.compiled else self.teacher
        self.diffusion = DiffusionLoss().to(self.device)
        self.probe = residual_probe(network).to(self.device)
        self.probe_optimizer = Optimizers(self.probe, config.rate, ends=("weight",))
        self._importance = importance(network.config.patch_nums).to(self.device)
        self._context_size = float(data.text.context[:64].float().std())

    def parts(self) -> dict[str, Stateful]:
        return {
            "network": self.network,
            "average": self.average,
            "optimizers": self.optimizers,
            "probe": self.probe,
            "probe_optimizer": self.probe_optimizer,
        }

    def step(self, now: Progress) -> dict[str, Tensor]:
        """One update; random numbers from torch's own generators."""
        rows = self._rows()
        indices = to_device(self.data.tokens.indices[rows], self.device).long()
        rest = to_device(self.data.tokens.rest[rows], self.device).float()
        conditioning = self._conditioning(rows)
        share = torch.rand(len(indices), 1, device=self.device) * self.config.corrupted
        maps = maps_of(self.quantizer, exchange_tokens(indices, share))
        with autocast(self.device):
            predicted = self._predict(conditioning, maps)
            surprise = F.cross_entropy(predicted.logits.flatten(0, 1), indices.flatten(), reduction="none")
            tokens = (surprise.view_as(indices) * self._importance).mean()
            residual, unexplained = self._residual_losses(predicted, indices, rest)
        weighted = self.config.residual_weight * residual + self.config.regression_weight * unexplained
        (tokens + weighted).backward()
        rate = rate_share(now.step, now.fraction)
        norm = self.optimizers.step(rate)
        self.probe_optimizer.step(rate)
        self.average.update(self.network, now.step)
        right = (predicted.logits.detach().argmax(-1) == indices).float().mean()
        return {
            "loss": tokens.detach(),
            "residual": residual.detach(),
            "unexplained": unexplained.detach(),
            "accuracy": right,
            "gradient": norm,
        }

    def _rows(self) -> Tensor:
        """(B,): the images of a step, where the tokens are."""
        size, scenes, singles = self.config.batch, self.data.scenes, self.data.singles
        device = self.data.tokens.indices.device
        rows = torch.randint(singles, (size,), device=device)
        if not scenes:
            return rows
        composed = singles + torch.randint(scenes, (size,), device=device)
        return torch.where(torch.rand(size, device=device) < self.config.scenes, composed, rows)

    def _conditioning(self, rows: Tensor) -> Conditioning:
        drawn = conditioning_to(self.data.text.any(rows), self.device)
        noise = torch.randn_like(drawn.context) * (self._context_size * self.config.context_noise)
        noisy = Conditioning(drawn.context + noise, drawn.mask, drawn.positions)
        return drop_conditions(noisy, torch.rand(len(rows), device=self.device) < self.config.dropped)

    def _residual_losses(self, predicted: Predicted, indices: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """On some of the last scale's tokens: the diffusion's loss, several draws each, and the probe's."""
        last, draws = self.quantizer.side**2, self.config.draws
        where = torch.rand(len(indices), last, device=self.device).argsort(1)[:, : self.config.max_positions, None]
        codes = self.quantizer.embedding(indices[:, -last:])
        condition = self.network.diffusion_condition(predicted.last_hidden, codes)
        residual = (rest - codes).gather(1, where.expand(-1, -1, codes.shape[2])).flatten(0, 1)
        condition = condition.gather(1, where.expand(-1, -1, condition.shape[2])).flatten(0, 1)
        error = self.probe(condition).float() - residual
        unexplained = error.square().mean() / residual.square().mean()
        t = draw_times(draws * len(residual), self.device)
        noise = torch.randn(len(t), residual.shape[1], device=self.device)
        net = self.network.diffloss.net
        diffusion = self.diffusion(net, residual.repeat(draws, 1), condition.repeat(draws, 1), t, noise)
        return diffusion, unexplained

    @torch.no_grad()
    def measure(self, rows: Tensor, max_batch: int = 64) -> dict[str, float]:
        """Token accuracy of the averaged weights on images `rows`, by scale, from true tokens and first captions."""
        teacher = TeacherForcing(cast(Transformer, self.average.network)).to(self.device)
        right = []
        rows = rows.to(self.data.tokens.indices.device)
        for part in rows.split(batch_size(max_batch, PIXELS * self.quantizer.side)):
            indices = self.data.tokens.indices[part].long().to(self.device)
            conditioning = self.data.text.first(part).to(self.device)
            with autocast(self.device):
                logits = teacher(conditioning, maps_of(self.quantizer, indices)).logits
            right.append((logits.argmax(-1) == indices).float())
        hits = torch.cat(right).mean(0)
        scales = hits.split([n * n for n in self.quantizer.sides])
        return {
            "token_accuracy": float(hits.mean()),
            **{f"side_{n}": float(part.mean()) for n, part in zip(self.quantizer.sides, scales, strict=True)},
        }


def residual_probe(network: Transformer) -> nn.Linear:
    """A linear map from the diffusion's condition (C,) to the residual (Z,), which only training uses.

    The diffusion's own loss is mostly unpredictable noise, and its gradient in the transformer is lost
    beside the tokens'. Regression with a probe has no such noise: it trains the hidden states to hold the residuals'
    means, where the head then reads them.
    """
    probe = nn.Linear(network.config.embed_dim, network.word_embed.in_features)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    return probe


def importance(sides: tuple[int, ...]) -> Tensor:
    """(L,): each token's weight in the loss, 1 on average, inversely proportional to its scale's side.

    The last scales hold most tokens and are easily predicted from those before; the first scales decide what the image
    shows, from the caption alone. With equal weights their accuracy was 0.37 when the mean was 0.91.
    """
    weights = torch.cat([torch.full((n * n,), 1 / n) for n in sides])
    return weights / weights.mean()


def warm_start(training: TransformerTraining, weights: Mapping[str, Tensor]) -> list[str]:
    """Loads weights whose names and shapes agree; returns the names that keep their fresh values. Raises RunError."""
    mine = training.network.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in mine and mine[name].shape == tensor.shape}
    if not fitting:
        raise RunError("none of the weights to initialise from fits this network")
    training.network.load_state_dict(mine | fitting)
    training.average.load_state_dict(mine | fitting)
    return sorted(mine.keys() - fitting.keys())
