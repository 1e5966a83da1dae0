"""Trains the hybrid tokenizer: autoencoder, codebook and φ. Knows nothing of words or of the transformer.

`python -m training.tokenizer --side 128 --styles flat` resumes by itself where it stopped; everything lies in
`.cache/training/NAME`: state.pt, log.jsonl, sheet-*.png, and at the end `tokenizer/` in the released layout. `--start`
begins with the averaged weights and the codebook of another run, to go on with more styles.
Half of each batch is decoded from the continuous latent and half from the discrete one (spec, section 9).
"""

import argparse
import sys
from collections.abc import Mapping
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
from training.beginning import pixelate
from training.codebook import CodebookMeans, quantise
from training.data import Pictures, load_pictures
from training.emoji import STYLES
from training.ending import run_command
from training.images import psnr, to_bytes, to_signed
from training.loop import STATE, Average, Budget, Moment, Run, Stateful, default_device, end_of
from training.optim import Optimizers, rate_share
from training.recompute import recompute
from training.release import centre_residuals, write_tokenizer
from training.sheet import save_sheet

CACHE = Path(".cache/training")
SCALES = {128: (1, 2, 3, 4, 6, 8), 256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)}
ENDS = ("conv_in", "conv_out", "quant_conv", "quant_resi", "embedding")
REVIVE_EVERY = 20
# So many steps the encoder is free of codes; over as many more their pull grows to its weight. Drawn to codes that
# stand for nothing yet, features became the same for all pictures, and the decoder drew the mean picture for good.
FREE = 300
REVIVE_UNTIL = 0.65


@dataclass(frozen=True)
class Weights:
    """What each part of the loss counts for, next to the mean absolute error of pictures in [-1, 1]."""

    square: float = 2.0
    """Squared error: what PSNR measures."""
    chroma: float = 0.5
    """Absolute error of R-G and of B-(R+G)/2: without it red is lost for long (a picture's error is mostly light)."""
    edges: float = 0.5
    """Absolute error of the differences between neighbours: keeps outlines sharp."""
    code: float = 0.2
    """The quantizer's own loss."""
    commitment: float = 0.25
    """In it, the pull of features towards codes."""


def picture_loss(drawn: Tensor, truth: Tensor, weights: Weights) -> Tensor:
    """Pictures (B, 3, S, S) in [-1, 1] to a number."""
    error = drawn - truth
    red_green = error[:, 0] - error[:, 1]
    blue_yellow = error[:, 2] - (error[:, 0] + error[:, 1]) / 2
    chroma = red_green.abs().mean() + blue_yellow.abs().mean()
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + weights.square * error.square().mean() + weights.chroma * chroma + weights.edges * edges


class Batches:
    """Draws training batches: mirrored half of the time, on a coloured ground or in exchanged colours now and then."""

    def __init__(self, pictures: Pictures, size: int, ground: float = 0.12, recolour: float = 0.06) -> None:
        self.pictures, self.size, self.ground, self.recolour = pictures, size, ground, recolour

    def draw(self) -> Tensor:
        """(B, 3, S, S) in [-1, 1]; random numbers from torch's own generator."""
        chosen = self.pictures.train[torch.randint(len(self.pictures.train), (self.size,)).numpy()]
        batch = to_signed(self.pictures.pixels[chosen])
        alpha = torch.from_numpy(np.ascontiguousarray(self.pictures.alpha[chosen])).float() / 255
        chance = torch.rand(4, self.size)
        ground = torch.rand(self.size, 3) * 2 - 1
        for i in range(self.size):
            if chance[0, i] < self.ground:
                batch[i] += (ground[i, :, None, None] - 1) * (1 - alpha[i])
            if chance[1, i] < self.recolour:
                batch[i] = batch[i, torch.randperm(3)]
            if chance[2, i] < 0.5:
                batch[i] = batch[i].flip(2)
        return batch


class TokenizerTraining:
    """One tokenizer in training."""

    def __init__(
        self,
        config: TokenizerConfig,
        rate: float,
        device: torch.device,
        compiled: bool = False,
        recomputed: bool = False,
    ) -> None:
        self.network = HybridTokenizer(config).to(device)
        self.network.quantize.embedding.weight.requires_grad_(False)
        self.average = Average(self.network)
        if recomputed:
            recompute(self.network, (ResidualBlock, Downsample, Upsample))
        self.means = CodebookMeans(self.network.quantize).to(device)
        self.optimizers = Optimizers(self.network, rate, ENDS)
        self.device, self.weights, self.free = device, Weights(), FREE
        self._features = torch.compile(self.network.features) if compiled else self.network.features
        self._decode = torch.compile(self.network.decode_raw) if compiled else self.network.decode_raw

    @torch.no_grad()
    def begin(self, batch: Tensor) -> None:
        """Makes fresh weights a pixelation, with a latent of size one on this batch."""
        pixelate(self.network)
        size = self.network.features(batch.to(self.device)).std()
        for parameter in self.network.quant_conv.parameters():
            parameter.div_(size)
        self.average.load_state_dict(self.network.state_dict())

    def begin_with(self, run: Path) -> None:
        """Begins with another run's averaged weights and codebook, whose codes stand for something already."""
        state = torch.load(run / STATE, map_location=self.device, weights_only=True)["parts"]
        self.network.load_state_dict(state["average"])
        self.average.load_state_dict(state["average"])
        self.means.load_state_dict(state["means"])
        self.free = 0

    def parts(self) -> dict[str, Stateful]:
        return {
            "network": self.network,
            "average": self.average,
            "means": self.means,
            "optimizers": self.optimizers,
        }

    def step(self, batch: Tensor, now: Moment) -> dict[str, float]:
        """One update on pictures (B, 3, S, S) in [-1, 1]."""
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            features = self._features(batch)
        features = features.float()
        coded = quantise(self.network.quantize, features, self.weights.commitment)
        straight = features + (coded.latent - features).detach()
        half = len(batch) // 2 if now.step >= self.free else len(batch)
        with torch.autocast(self.device.type, torch.bfloat16):
            drawn = self._decode(torch.cat([features[:half], straight[half:]]))
        seen = picture_loss(drawn.float(), batch, self.weights)
        pull = self.weights.code * (min(1.0, max(0.0, now.step / self.free - 1)) if self.free else 1.0)
        (seen + pull * coded.loss).backward()
        norm = self.optimizers.step(rate_share(now.step, now.progress))
        self.means.update(self.network.quantize, coded)
        if (now.step < 8 and self.free) or (now.step % REVIVE_EVERY == 0 and now.progress < REVIVE_UNTIL):
            self.means.revive(self.network.quantize, coded)
        self.average.update(self.network, now.step)
        return {
            "loss": float(seen.detach()),
            "code": float(coded.loss.detach()),
            "alive": self.means.alive(),
            "size": float(features.detach().std()),
            "gradient": norm,
        }

    @torch.no_grad()
    def measure(self, pixels: NDArray[np.uint8], sheet: Path | None, batch: int = 16) -> dict[str, float]:
        """PSNR of the averaged weights on pictures (n, S, S, 3), continuous and discrete; the first 12 to a sheet."""
        tokenizer = self.average.network
        rows: list[Tensor] = []
        figures: dict[str, list[Tensor]] = {"continuous": [], "discrete": [], "residual": []}
        for start in range(0, len(pixels), batch):
            signed = to_signed(pixels[start : start + batch]).to(self.device)
            code = tokenizer.encode(signed)  # type: ignore[operator]
            latent = tokenizer.latent_of(code.indices)  # type: ignore[operator]
            drawn = [tokenizer.decode(code.features), tokenizer.decode(latent)]  # type: ignore[operator]
            truth = (signed + 1) / 2
            figures["continuous"].append(psnr(drawn[0], truth))
            figures["discrete"].append(psnr(drawn[1], truth))
            figures["residual"].append((code.features - latent).std().view(1))
            rows.append(torch.stack([truth, *drawn]))
        if sheet is not None:
            save_sheet(sheet, to_bytes(torch.cat(rows, 1)[:, :12].flatten(0, 1)), columns=min(12, len(pixels)))
        return {name: float(torch.cat(values).mean()) for name, values in figures.items()}


def spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most `most` of the rows, evenly spread, so that every style is among them."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.tokenizer", description="Train the hybrid tokenizer.")
    parser.add_argument("--name", default="tokenizer", help="folder below .cache/training")
    parser.add_argument("--start", help="begin with the averaged weights of this folder below .cache/training")
    parser.add_argument("--side", type=int, default=128, choices=sorted(SCALES), help="side of a picture in pixels")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=["flat"])
    parser.add_argument("--steps", type=int, default=6000, help="at most so many steps")
    parser.add_argument("--minutes", type=float, help="at most so many minutes of training")
    parser.add_argument("--sitting", type=float, help="stop after so many minutes in all; the next call goes on")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=32, help="ch: channels at full resolution")
    parser.add_argument("--vocabulary", type=int, default=2048, help="rows of the codebook")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--recompute", action="store_true", help="less memory, a third more time")
    arguments = parser.parse_args()
    if arguments.batch < 2:
        parser.error(f"--batch: {arguments.batch}: codes are learned from what differs between pictures: 2 or more")
    until = end_of(arguments.sitting)
    torch.manual_seed(arguments.seed)
    pictures = load_pictures(arguments.side, arguments.styles)
    config = TokenizerConfig(vocab_size=arguments.vocabulary, ch=arguments.width, v_patch_nums=SCALES[arguments.side])
    training = TokenizerTraining(config, arguments.rate, default_device(), arguments.compile, arguments.recompute)
    run = Run(CACHE / arguments.name, training.parts(), arguments.seed)
    run.log(event="started", options=vars(arguments), pictures=len(pictures.train), threads=torch.get_num_threads())
    batches = Batches(pictures, arguments.batch)
    resumed = run.resume()
    if arguments.start:
        training.free = 0
    if not resumed and arguments.start:
        training.begin_with(CACHE / arguments.start)
    elif not resumed:
        training.begin(batches.draw())
    held_out = pictures.pixels[spread(pictures.held_out, 96)]

    def measure(now: Moment) -> Mapping[str, float]:
        return training.measure(held_out, run.folder / f"sheet-{now.step:06d}.png")

    def step(now: Moment) -> Mapping[str, float]:
        return training.step(batches.draw(), now)

    if not run.train(Budget(arguments.steps, arguments.minutes), step, measure, until=until):
        return
    tokenizer = cast(HybridTokenizer, training.average.network)
    sample = to_signed(pictures.pixels[spread(pictures.train, 256)])
    run.log(event="residuals centred", factor=centre_residuals(tokenizer, sample))
    run.log(event="written", to=str(write_tokenizer(tokenizer, run.folder / "tokenizer")))


if __name__ == "__main__":
    sys.exit(run_command(main))
