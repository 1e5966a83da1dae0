"""Trains the transformer with its residual diffusion on pictures' tokens. Knows no pixels but those of its sheets.

`python -m training.transformer --things 160 --minutes 8` resumes by itself; it wants a trained tokenizer and a text
encoder (`training.tokenizer`, `training.text`). Everything lies in `.cache/training/NAME`: state.pt, log.jsonl,
sheet-*.png, and at the end `llm/` in the released layout.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.checkpoint import Checkpoint, digest_of_folder
from model.generation import Conditioning
from model.quantizer import Quantizer
from model.text import TextEncoder
from model.transformer import Block, Transformer
from training.codes import Codes, cached_codes
from training.contexts import Contexts, encode_words, phrase
from training.data import Pictures, load_pictures, subset
from training.diffusion_loss import DiffusionLoss
from training.drawing import draw_sheet
from training.emoji import STYLES
from training.ending import run_command
from training.loop import STATE, Average, Budget, Moment, Run, Stateful, default_device, end_of
from training.network import small_transformer
from training.optim import Optimizers, rate_share
from training.recompute import recompute
from training.release import write_transformer
from training.scenes import scenery
from training.teacher_forcing import Predicted, TeacherForcing, drop_conditions, maps_of
from training.things import choose

CACHE = Path(".cache/training")
ENDS = ("word_embed", "context_embed", "lvl_embed", "head", "input_proj", "cond_embed", "final_layer", "time_embed")


@dataclass(frozen=True)
class Recipe:
    """What a step does besides predicting tokens."""

    batch: int = 32
    rate: float = 2e-3
    dropped: float = 0.1
    """Share of rows without a prompt: what guidance compares with."""
    corrupted: float = 0.3
    """Up to this share of the tokens shown are exchanged for other pictures': drawn ones are not perfect either."""
    kept: float = 0.375
    """Share of the last scale's tokens whose residuals are learned in a step."""
    draws: int = 4
    """Noise draws for each of those."""
    context_noise: float = 0.1
    """Standard normal noise on the conditioning, as a share of its size: prompts nobody trained on land near by."""
    diffusion: float = 0.5
    """What the diffusion's loss counts for next to the tokens' cross-entropy."""
    scenes: float = 0.15
    """Share of rows that are composed scenes, if there are any."""


class TransformerTraining:
    """One transformer in training on codes of n pictures and their captions; the last `scenes` of them are composed."""

    def __init__(
        self,
        network: Transformer,
        quantizer: Quantizer,
        codes: Codes,
        contexts: Contexts,
        recipe: Recipe,
        compiled: bool = False,
        scenes: int = 0,
        recomputed: bool = False,
    ) -> None:
        if len(codes) != len(contexts.words):
            raise ValueError(f"{len(codes)} pictures but captions of {len(contexts.words)}")
        self.device = network.word_embed.weight.device
        self.network, self.quantizer, self.recipe = network, quantizer.requires_grad_(False), recipe
        self.codes, self.contexts, self.scenes = codes, contexts, scenes
        self.average = Average(network)
        if recomputed:
            recompute(network, (Block,))
        self.optimizers = Optimizers(network, recipe.rate, ENDS)
        self.teacher = TeacherForcing(network).to(self.device)
        self._predict = torch.compile(self.teacher) if compiled else self.teacher
        self.diffusion = DiffusionLoss().to(self.device)
        self._importance = importance(network.config.patch_nums).to(self.device)
        self._context_size = float(contexts.context[:64].float().std())

    def parts(self) -> dict[str, Stateful]:
        return {"network": self.network, "average": self.average, "optimizers": self.optimizers}

    def step(self, now: Moment) -> dict[str, float]:
        """One update; random numbers from torch's own generator."""
        recipe, rows = self.recipe, self._rows()
        indices = self.codes.indices[rows].long().to(self.device)
        rest = self.codes.rest[rows].float().to(self.device)
        conditioning = self._conditioning(rows)
        maps = maps_of(self.quantizer, self._corrupt(indices))
        with torch.autocast(self.device.type, torch.bfloat16):
            predicted = self._predict(conditioning, maps)
            surprise = F.cross_entropy(predicted.logits.flatten(0, 1), indices.flatten(), reduction="none")
            tokens = (surprise.view_as(indices) * self._importance).mean()
            residual = self._residual_loss(predicted, indices, rest)
        (tokens + recipe.diffusion * residual).backward()
        norm = self.optimizers.step(rate_share(now.step, now.progress))
        self.average.update(self.network, now.step)
        right = (predicted.logits.detach().argmax(-1) == indices).float().mean()
        return {"loss": tokens.item(), "residual": residual.item(), "accuracy": right.item(), "gradient": norm}

    def _rows(self) -> Tensor:
        """(B,): which pictures a step learns from."""
        size, single = self.recipe.batch, len(self.codes) - self.scenes
        rows = torch.randint(single, (size,))
        if not self.scenes:
            return rows
        composed = single + torch.randint(self.scenes, (size,))
        return torch.where(torch.rand(size) < self.recipe.scenes, composed, rows)

    def _conditioning(self, rows: Tensor) -> Conditioning:
        drawn = self.contexts.any(rows).to(self.device)
        noise = torch.randn_like(drawn.context) * (self._context_size * self.recipe.context_noise)
        noisy = Conditioning(drawn.context + noise, drawn.mask, drawn.positions)
        return drop_conditions(noisy, torch.rand(len(rows), device=self.device) < self.recipe.dropped)

    def _corrupt(self, indices: Tensor) -> Tensor:
        """Exchanges a share of each row's tokens, drawn row by row up to the recipe's, for another row's."""
        share = torch.rand(len(indices), 1, device=indices.device) * self.recipe.corrupted
        exchanged = torch.rand(indices.shape, device=indices.device) < share
        return torch.where(exchanged, indices.roll(1, 0), indices)

    def _residual_loss(self, predicted: Predicted, indices: Tensor, rest: Tensor) -> Tensor:
        """The diffusion's loss on some of the last scale's tokens, several draws each."""
        last = self.quantizer.side**2
        kept = max(1, round(self.recipe.kept * last))
        where = torch.rand(len(indices), last, device=self.device).argsort(1)[:, :kept, None]
        codes = self.quantizer.embedding(indices[:, -last:])
        condition = self.network.diffusion_condition(predicted.last_hidden, codes)
        residual = (rest - codes).gather(1, where.expand(-1, -1, codes.shape[2])).flatten(0, 1)
        condition = condition.gather(1, where.expand(-1, -1, condition.shape[2])).flatten(0, 1)
        draws = self.recipe.draws
        t = torch.randint(1000, (draws * len(residual),), device=self.device)
        noise = torch.randn(len(t), residual.shape[1], device=self.device)
        net = self.network.diffloss.net
        return cast(Tensor, self.diffusion(net, residual.repeat(draws, 1), condition.repeat(draws, 1), t, noise))

    @torch.no_grad()
    def measure(self, rows: Tensor, batch: int = 64) -> dict[str, float]:
        """Token accuracy of the averaged weights, shown uncorrupted tokens and the plainest caption: the gate."""
        teacher = TeacherForcing(cast(Transformer, self.average.network)).to(self.device)
        right = []
        for part in rows.split(batch):
            indices = self.codes.indices[part].long().to(self.device)
            conditioning = self.contexts.first(part).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16):
                logits = teacher(conditioning, maps_of(self.quantizer, indices)).logits
            right.append((logits.argmax(-1) == indices).float())
        hits = torch.cat(right).mean(0)
        scales = hits.split([n * n for n in self.quantizer.sides])
        return {
            "token_accuracy": float(hits.mean()),
            **{f"side_{n}": float(part.mean()) for n, part in zip(self.quantizer.sides, scales, strict=True)},
        }


def importance(sides: tuple[int, ...]) -> Tensor:
    """(L,): what each token counts for in the loss, 1 on average, falling with its scale's side.

    The last scales hold most tokens, and shown the ones before they are easily told; what picture it is is decided in
    the first scales, by the words alone. Counted alike, those were at 0.37 when the mean accuracy was 0.91.
    """
    weights = torch.cat([torch.full((n * n,), 1 / n) for n in sides])
    return weights / weights.mean()


def warm_start(training: TransformerTraining, weights: Mapping[str, Tensor]) -> list[str]:
    """Puts given weights in place of fresh ones, where names and shapes agree; returns the names that stay fresh."""
    mine = training.network.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in mine and mine[name].shape == tensor.shape}
    if not fitting:
        raise ValueError("none of the weights to start from fits this network")
    training.network.load_state_dict(mine | fitting)
    training.average.load_state_dict(mine | fitting)
    return sorted(mine.keys() - fitting.keys())


def averaged_weights(run: Path) -> dict[str, Tensor]:
    """The averaged weights of another run."""
    state = torch.load(run / STATE, map_location="cpu", weights_only=True)
    return cast(dict[str, Tensor], state["parts"]["average"])


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` numbers, evenly spread."""
    return [i * count // min(count, most) for i in range(min(count, most))]


def chosen_pictures(pictures: Pictures, things: int | None) -> Pictures:
    """The pictures of the best-known things alone."""
    return subset(pictures, [pictures.things[i] for i in choose(pictures.things, things)])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.transformer", description="Train the transformer.")
    parser.add_argument("--name", default="transformer", help="folder below .cache/training")
    parser.add_argument("--tokenizer", default="tokenizer", help="folder below .cache/training with tokenizer/ in it")
    parser.add_argument("--text", default="text_encoder", help="folder below .cache/training")
    parser.add_argument("--start", help="begin with the averaged weights of this folder below .cache/training")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=["flat"])
    parser.add_argument("--things", type=int, help="only so many, well-known ones first")
    parser.add_argument("--variants", type=int, default=12, help="captions of each picture")
    parser.add_argument("--scenes", type=int, default=0, help="so many composed scenes besides")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--context-tokens", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100_000, help="at most so many steps")
    parser.add_argument("--minutes", type=float, help="at most so many minutes of training")
    parser.add_argument("--sitting", type=float, help="stop after so many minutes in all; the next call goes on")
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--rate", type=float, default=Recipe.rate)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--recompute", action="store_true", help="less memory, a third more time")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    until = end_of(options.sitting)
    torch.manual_seed(options.seed)
    device = default_device()
    pictures = chosen_pictures(load_pictures(options.side, options.styles), options.things)
    base = Checkpoint.open(CACHE / options.tokenizer)
    tokenizer = base.load_tokenizer(device=device)
    encoder = TextEncoder.load(CACHE / options.text, options.context_tokens, device)
    folder = CACHE / options.name
    composed, told = scenery(pictures, options.scenes, options.seed)
    words = [*phrase(pictures.things, options.variants, options.seed), *([caption] for caption in told)]
    pixels = np.concatenate([pictures.pixels, composed])
    codes = cached_codes(tokenizer, pixels, folder / "codes.pt", digest_of_folder(base.tokenizer))
    training = TransformerTraining(
        small_transformer(tokenizer, encoder, options.width, options.depth).to(device),
        tokenizer.quantize,
        codes,
        encode_words(encoder, words),
        Recipe(batch=options.batch, rate=options.rate),
        options.compile,
        options.scenes,
        options.recompute,
    )
    run = Run(folder, training.parts(), options.seed)
    run.log(event="started", options=vars(options), pictures=len(codes), threads=torch.get_num_threads())
    if not run.resume() and options.start:
        fresh = warm_start(training, averaged_weights(CACHE / options.start))
        run.log(event="warm start", begun_with=options.start, fresh=fresh)
    single = len(codes) - options.scenes
    gate = torch.tensor(spread(single, 256))
    composed_gate = single + torch.tensor(spread(options.scenes, 128), dtype=torch.long)
    shown = [words[i][-1] for i in spread(single, 24 if options.scenes else 32)] + told[:8]

    def measure(now: Moment) -> Mapping[str, float]:
        draw_sheet(
            cast(Transformer, training.average.network), tokenizer, encoder, shown, folder / f"sheet-{now.step:06d}.png"
        )
        scenes = {"scenes": training.measure(composed_gate)["token_accuracy"]} if options.scenes else {}
        return training.measure(gate) | scenes

    if not run.train(Budget(options.steps, options.minutes), training.step, measure, until=until):
        return
    run.log(event="written", to=str(write_transformer(cast(Transformer, training.average.network), folder / "llm")))


if __name__ == "__main__":
    sys.exit(run_command(main))
