"""Trains the hybrid tokenizer: autoencoder, codebook and φ.

A run lies in `RUNS/NAME`: state.pt, log.jsonl, samples-*.png, and at the end `tokenizer/` in the released layout. The
same command resumes it. Half of each batch is decoded from the continuous latent and half from the discrete one
(docs/spec.md, section 9).
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.autoencoder import Downsample, ResidualBlock, Upsample
from model.config import TokenizerConfig
from model.tokenizer import HybridTokenizer
from training.checkpoint.export import centre_residuals, write_tokenizer
from training.core.activation_checkpointing import checkpoint_activations
from training.core.device import autocast, default_device
from training.core.images import batch_size, psnr, sample_size, to_bytes, to_signed
from training.core.loop import EMA, Budget, Progress, Run, RunError, Stateful, deadline_after, saved_parts
from training.core.optim import Optimizers, rate_share
from training.core.options import add_run_options, count, find_init, positive, refuse_own_start
from training.core.run_log import loggable
from training.core.sample_grid import save_sample_grid
from training.data.batches import Batches
from training.data.dataset import FolderImages, ImageSource
from training.data.image_set import ImageSet
from training.tokenizer.codebook import CodebookMeans, quantise
from training.tokenizer.init import pixelate

# By image side. 256 and 1024 as HART was released; 512 as in VAR (arXiv 2404.02905).
SCALES = {
    128: (1, 2, 3, 4, 6, 8),
    256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    1024: (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
}
GROUPS = 32
MAX_ROWS = 32_768  # tokens are stored as int16
ENDS = ("conv_in", "conv_out", "quant_conv", "quant_resi", "embedding")
REVIVE_EVERY = 20
# Commitment-loss warm-up: 0 for FREE steps, then linear over FREE more. Without it all features became the same and
# the decoder stayed at the mean image.
FREE = 300
REVIVE_UNTIL = 0.65
GRID_IMAGES = 12


@dataclass(frozen=True)
class Weights:
    """Weights of the loss's parts, relative to the mean absolute error of images in [-1, 1]."""

    square: float = 2.0
    """Squared error: what PSNR measures."""
    chroma: float = 0.5
    """Absolute error of R-G and of B-(R+G)/2. Without it red comes last: most of an image's error is luminance."""
    edges: float = 0.5
    """Absolute error of the differences between neighbours: keeps edges sharp."""
    code: float = 0.2
    """The quantizer's own loss."""
    commitment: float = 0.25
    """Within it, the commitment loss of features to codes."""


def image_loss(drawn: Tensor, truth: Tensor, weights: Weights) -> Tensor:
    """Images (B, 3, S, S) in [-1, 1] to a scalar."""
    error = drawn - truth
    red_green = error[:, 0] - error[:, 1]
    blue_yellow = error[:, 2] - (error[:, 0] + error[:, 1]) / 2
    chroma = red_green.abs().mean() + blue_yellow.abs().mean()
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + weights.square * error.square().mean() + weights.chroma * chroma + weights.edges * edges


class TokenizerTraining:
    """One tokenizer in training."""

    def __init__(
        self,
        config: TokenizerConfig,
        rate: float,
        device: torch.device,
        compiled: bool = False,
        checkpointed: bool = False,
    ) -> None:
        self.network = HybridTokenizer(config).to(device)
        self.network.quantize.embedding.weight.requires_grad_(False)
        self.average = EMA(self.network)
        if checkpointed:
            checkpoint_activations(self.network, (ResidualBlock, Downsample, Upsample))
        self.means = CodebookMeans(self.network.quantize).to(device)
        self.optimizers = Optimizers(self.network, rate, ENDS)
        self.device, self.weights, self.free = device, Weights(), FREE
        self._features = torch.compile(self.network.features) if compiled else self.network.features
        self._decode = torch.compile(self.network.decode_raw) if compiled else self.network.decode_raw

    @torch.no_grad()
    def initialise(self, batch: Tensor) -> None:
        """Initialises the weights as a pixelation whose latent has standard deviation 1 on this batch."""
        pixelate(self.network)
        size = self.network.features(batch.to(self.device)).std()
        for parameter in self.network.quant_conv.parameters():
            parameter.div_(size)
        self.average.load_state_dict(self.network.state_dict())

    def init_from(self, run: Path) -> None:
        """Takes another run's averaged weights and codebook. Raises RunError if they are of other shapes."""
        state = saved_parts(run, self.device)
        try:
            self.network.load_state_dict(state["average"])
            self.average.load_state_dict(state["average"])
            self.means.load_state_dict(state["means"])
        except (RuntimeError, KeyError) as error:
            raise RunError(
                f"{run}: holds no tokenizer of this --width and --vocabulary to initialise from "
                f"({' '.join(str(error).split())[:200]})"
            ) from None
        self.free = 0

    def parts(self) -> dict[str, Stateful]:
        return {
            "network": self.network,
            "average": self.average,
            "means": self.means,
            "optimizers": self.optimizers,
        }

    def step(self, batch: Tensor, now: Progress) -> dict[str, Tensor]:
        """One update on images (B, 3, S, S) in [-1, 1]; random numbers from torch's own generator."""
        batch = batch.to(self.device)
        with autocast(self.device):
            features = self._features(batch)
        features = features.float()
        coded = quantise(self.network.quantize, features, self.weights.commitment)
        straight = features + (coded.latent - features).detach()
        half = len(batch) // 2 if now.step >= self.free else len(batch)
        with autocast(self.device):
            drawn = self._decode(torch.cat([features[:half], straight[half:]]))
        seen = image_loss(drawn.float(), batch, self.weights)
        pull = self.weights.code * (min(1.0, max(0.0, now.step / self.free - 1)) if self.free else 1.0)
        (seen + pull * coded.loss).backward()
        norm = self.optimizers.step(rate_share(now.step, now.fraction))
        self.means.update(self.network.quantize, coded)
        if (now.step < 8 and self.free) or (now.step % REVIVE_EVERY == 0 and now.fraction < REVIVE_UNTIL):
            self.means.revive(self.network.quantize, coded)
        self.average.update(self.network, now.step)
        return {
            "loss": seen.detach(),
            "code": coded.loss.detach(),
            "alive": self.means.alive(),
            "size": features.detach().std(),
            "gradient": norm,
        }

    @torch.no_grad()
    def measure(self, pixels: NDArray[np.uint8], grid: Path | None, max_batch: int = 16) -> dict[str, float]:
        """PSNR of the averaged weights on images (n, S, S, 3), continuous and discrete; the first 12 to a grid."""
        tokenizer, batch = cast(HybridTokenizer, self.average.network), batch_size(max_batch, pixels.shape[1])
        rows: list[Tensor] = []
        figures: dict[str, list[Tensor]] = {"continuous": [], "discrete": [], "residual": []}
        for start in range(0, len(pixels), batch):
            signed = to_signed(pixels[start : start + batch], self.device)
            code = tokenizer.encode(signed)
            latent = tokenizer.latent_of(code.indices)
            drawn = [tokenizer.decode(code.features), tokenizer.decode(latent)]
            truth = (signed + 1) / 2
            figures["continuous"].append(psnr(drawn[0], truth))
            figures["discrete"].append(psnr(drawn[1], truth))
            figures["residual"].append((code.features - latent).std().view(1))
            if start < GRID_IMAGES:
                rows.append(torch.stack([truth, *drawn]))
        if grid is not None:
            columns = min(GRID_IMAGES, len(pixels))
            save_sample_grid(grid, to_bytes(torch.cat(rows, 1)[:, :GRID_IMAGES].flatten(0, 1)), columns)
        return {name: float(torch.cat(values).mean()) for name, values in figures.items()}


def spread_rows(rows: NDArray[np.int64], max_count: int) -> NDArray[np.int64]:
    """Up to `max_count` of the rows, evenly spaced, so that every style is among them."""
    return rows[np.linspace(0, len(rows) - 1, min(max_count, len(rows))).round().astype(np.int64)]


def parse(source: ImageSource, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's options; None stands for options that were not given."""
    parser = argparse.ArgumentParser(prog=f"python -m {source.package}.tokenizer", description="Train the tokenizer.")
    source.add_options(parser)
    add_run_options(parser, "tokenizer")
    parser.add_argument("--side", type=int, default=128, choices=sorted(SCALES), help="side of an image in pixels")
    parser.add_argument("--steps", type=count, default=6000, help="maximum steps (default: %(default)s)")
    parser.add_argument("--batch", type=count, default=8, help="images a step (default: %(default)s)")
    parser.add_argument("--rate", type=positive, default=2e-3, help="learning rate (default: %(default)s)")
    parser.add_argument("--width", type=count, default=32, help="channels at full resolution, a multiple of 32")
    parser.add_argument("--vocabulary", type=count, default=2048, help="rows of the codebook")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument(
        "--activation-checkpointing",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="less memory, a third more time",
    )
    options = parser.parse_args(arguments)
    source.check_options(parser, options)
    refuse_own_start(parser, options)
    if options.batch < 2:
        parser.error(f"--batch: {options.batch}: codes are learned from differences between images: 2 or more")
    if options.width % GROUPS:
        parser.error(f"--width: {options.width}: must be a multiple of {GROUPS}, the number of groups normalised")
    if options.vocabulary > MAX_ROWS:
        parser.error(f"--vocabulary: {options.vocabulary}: must be at most {MAX_ROWS}")
    return options


def config_of(options: argparse.Namespace) -> TokenizerConfig:
    """The shape of the tokenizer that the options name."""
    return TokenizerConfig(vocab_size=options.vocabulary, ch=options.width, v_patch_nums=SCALES[options.side])


def train(options: argparse.Namespace, images: ImageSet, source: ImageSource, deadline: float) -> None:
    """Trains, or resumes, and writes the tokenizer if the budget's end is reached before the deadline."""
    training = TokenizerTraining(
        config_of(options), options.rate, default_device(), options.compile, options.activation_checkpointing
    )
    origin = find_init(options)
    run = Run(options.runs / options.name, training.parts(), options.seed)
    resumed = run.resume()  # before the start is logged: cards quote the last start
    run.log(
        event="started",
        module=f"{source.package}.tokenizer",
        options=loggable(options),
        images=len(images.train),
        threads=torch.get_num_threads(),
    )
    batches = Batches(images, options.batch, training.device, distinct=source.distinct)
    if options.init_from:
        training.free = 0
    if origin is not None:
        training.init_from(origin)
    elif not resumed:
        training.initialise(batches.draw())
    held_out = images.pixels[spread_rows(images.held_out, sample_size(96, options.side))]

    def measure(now: Progress) -> Mapping[str, float]:
        return training.measure(held_out, run.folder / f"samples-{now.step:06d}.png")

    def step(now: Progress) -> Mapping[str, Tensor]:
        return training.step(batches.draw(), now)

    if run.train(Budget(options.steps, options.minutes), step, measure, deadline=deadline):
        _write(run, cast(HybridTokenizer, training.average.network), images, options.side)


def _write(run: Run, tokenizer: HybridTokenizer, images: ImageSet, side: int) -> None:
    sample = to_signed(images.pixels[spread_rows(images.train, sample_size(256, side))])
    run.log(event="residuals centred", factor=centre_residuals(tokenizer, sample))
    run.log(event="written", to=str(write_tokenizer(tokenizer, run.folder / "tokenizer")))


def main(source: ImageSource | None = None, arguments: Sequence[str] | None = None) -> None:
    """The command, for images of `source`: by default a folder's."""
    source = source or FolderImages()
    options = parse(source, arguments)
    deadline = deadline_after(options.time_limit)
    torch.manual_seed(options.seed)
    find_init(options)  # before images are read, which can take hours
    train(options, source.load(options), source, deadline)
