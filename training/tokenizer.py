"""Trains the hybrid tokenizer: autoencoder, codebook and φ. Knows nothing of words or of the transformer.

`python -m training.tokenizer --side 128 --styles flat` resumes by itself where it stopped; everything lies in
`.cache/training/NAME`: state.pt, log.jsonl, sheet-*.png, and at the end `tokenizer/` in the released layout. `--start`
begins with the averaged weights and the codebook of another run, to go on with more styles or at another side.
`--pictures FOLDER` learns a folder's pictures instead of emoji art.
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
from training.album import read_pictures, shared_album
from training.batches import Batches
from training.beginning import pixelate
from training.codebook import CodebookMeans, quantise
from training.data import Pictures, load_pictures
from training.device import default_device
from training.emoji import STYLES
from training.ending import run_command
from training.images import at_once, looked_at, psnr, to_bytes, to_signed
from training.loop import Average, Budget, Moment, Run, RunError, Stateful, end_of, parts_of
from training.optim import Optimizers, rate_share
from training.options import CACHE, count, found_start, positive, refuse_beside_pictures, refuse_own_start, seed
from training.recompute import recompute
from training.release import centre_residuals, write_tokenizer
from training.sheet import save_sheet

# By picture side. 256 and 1024 as HART was released; 512 as VAR, where those come from, has it (arXiv 2404.02905).
SCALES = {
    128: (1, 2, 3, 4, 6, 8),
    256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    1024: (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
}
GROUPS = 32
MOST_ROWS = 32_768  # codes are kept as int16
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
        state = parts_of(run, self.device)
        try:
            self.network.load_state_dict(state["average"])
            self.average.load_state_dict(state["average"])
            self.means.load_state_dict(state["means"])
        except (RuntimeError, KeyError) as error:
            raise RunError(
                f"{run}: holds no tokenizer of this --width and --vocabulary to start from "
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

    def step(self, batch: Tensor, now: Moment) -> dict[str, Tensor]:
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
            "loss": seen.detach(),
            "code": coded.loss.detach(),
            "alive": self.means.alive(),
            "size": features.detach().std(),
            "gradient": norm,
        }

    @torch.no_grad()
    def measure(self, pixels: NDArray[np.uint8], sheet: Path | None, most: int = 16) -> dict[str, float]:
        """PSNR of the averaged weights on pictures (n, S, S, 3), continuous and discrete; the first 12 to a sheet."""
        tokenizer, batch = self.average.network, at_once(most, pixels.shape[1])
        rows: list[Tensor] = []
        figures: dict[str, list[Tensor]] = {"continuous": [], "discrete": [], "residual": []}
        for start in range(0, len(pixels), batch):
            signed = to_signed(pixels[start : start + batch], self.device)
            code = tokenizer.encode(signed)  # type: ignore[operator]
            latent = tokenizer.latent_of(code.indices)  # type: ignore[operator]
            drawn = [tokenizer.decode(code.features), tokenizer.decode(latent)]  # type: ignore[operator]
            truth = (signed + 1) / 2
            figures["continuous"].append(psnr(drawn[0], truth))
            figures["discrete"].append(psnr(drawn[1], truth))
            figures["residual"].append((code.features - latent).std().view(1))
            if start < 12:
                rows.append(torch.stack([truth, *drawn]))
        if sheet is not None:
            save_sheet(sheet, to_bytes(torch.cat(rows, 1)[:, :12].flatten(0, 1)), columns=min(12, len(pixels)))
        return {name: float(torch.cat(values).mean()) for name, values in figures.items()}


def spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most `most` of the rows, evenly spread, so that every style is among them."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command's options, those that depend on others filled in; what stays None was not given."""
    parser = argparse.ArgumentParser(prog="python -m training.tokenizer", description="Train the hybrid tokenizer.")
    parser.add_argument("--name", default="tokenizer", help="folder below .cache/training")
    parser.add_argument("--start", help="begin with the averaged weights of this folder below .cache/training")
    parser.add_argument("--side", type=int, default=128, choices=sorted(SCALES), help="side of a picture in pixels")
    parser.add_argument("--pictures", help="a folder of pictures of your own; captions are not read")
    parser.add_argument("--styles", nargs="+", choices=STYLES, help="of emoji art (default: flat)")
    parser.add_argument("--steps", type=count, default=6000, help="at most so many steps")
    parser.add_argument("--minutes", type=positive, help="at most so many minutes of training")
    parser.add_argument("--sitting", type=positive, help="stop after so many minutes in all; the next call goes on")
    parser.add_argument("--batch", type=count, default=8)
    parser.add_argument("--rate", type=positive, default=2e-3)
    parser.add_argument("--width", type=count, default=32, help="ch: channels at full resolution, a multiple of 32")
    parser.add_argument("--vocabulary", type=count, default=2048, help="rows of the codebook")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument(
        "--recompute", action=argparse.BooleanOptionalAction, default=False, help="less memory, a third more time"
    )
    options = parser.parse_args(arguments)
    refuse_beside_pictures(parser, options, ["styles"])
    refuse_own_start(parser, options)
    if options.batch < 2:
        parser.error(f"--batch: {options.batch}: codes are learned from what differs between pictures: 2 or more")
    if options.width % GROUPS:
        parser.error(f"--width: {options.width}: must be a multiple of {GROUPS}, the number of groups normalised")
    if options.vocabulary > MOST_ROWS:
        parser.error(f"--vocabulary: {options.vocabulary}: at most {MOST_ROWS}")
    if options.pictures is None:
        options.styles = options.styles or ["flat"]
    return options


def config_of(options: argparse.Namespace) -> TokenizerConfig:
    """The tokenizer that the options ask for."""
    return TokenizerConfig(vocab_size=options.vocabulary, ch=options.width, v_patch_nums=SCALES[options.side])


def pictures_of(options: argparse.Namespace) -> Pictures:
    """The pictures that the options ask for. Raises FolderError."""
    if options.pictures is None:
        return load_pictures(options.side, options.styles)
    folder = Path(options.pictures)
    return read_pictures(folder, options.side, shared_album(folder, options.side), least=options.batch)


def main() -> None:
    options = parse()
    until = end_of(options.sitting)
    torch.manual_seed(options.seed)
    start = found_start(options)
    pictures = pictures_of(options)
    training = TokenizerTraining(config_of(options), options.rate, default_device(), options.compile, options.recompute)
    run = Run(CACHE / options.name, training.parts(), options.seed)
    resumed = run.resume()  # first: a start that is refused is none, and cards quote the last one
    run.log(event="started", options=vars(options), pictures=len(pictures.train), threads=torch.get_num_threads())
    batches = Batches(pictures, options.batch, training.device, distinct=options.pictures is not None)
    if options.start:
        training.free = 0
    if start is not None:
        training.begin_with(start)
    elif not resumed:
        training.begin(batches.draw())
    held_out = pictures.pixels[spread(pictures.held_out, looked_at(96, options.side))]

    def measure(now: Moment) -> Mapping[str, float]:
        return training.measure(held_out, run.folder / f"sheet-{now.step:06d}.png")

    def step(now: Moment) -> Mapping[str, Tensor]:
        return training.step(batches.draw(), now)

    if not run.train(Budget(options.steps, options.minutes), step, measure, until=until):
        return
    tokenizer = cast(HybridTokenizer, training.average.network)
    sample = to_signed(pictures.pixels[spread(pictures.train, looked_at(256, options.side))])
    run.log(event="residuals centred", factor=centre_residuals(tokenizer, sample))
    run.log(event="written", to=str(write_tokenizer(tokenizer, run.folder / "tokenizer")))


if __name__ == "__main__":
    sys.exit(run_command(main))
