"""Trains the transformer with its residual diffusion on pictures' tokens. Knows no pixels but those of its sheets.

`python -m training.transformer --things 160 --minutes 8` resumes by itself; it wants a trained tokenizer and a text
encoder (`training.tokenizer`, `training.text`). Everything lies in `.cache/training/NAME`: state.pt, log.jsonl,
sheet-*.png, and at the end `llm/` in the released layout. `--pictures FOLDER` learns a folder's captioned pictures
instead of emoji art.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from model.checkpoint import Checkpoint, digest_of_folder
from model.config import TokenizerConfig, TransformerConfig
from model.generation import Conditioning
from model.quantizer import Quantizer
from model.transformer import Block, Transformer
from training.codes import Codes, cached_codes
from training.contexts import Contexts, encode_words, load_encoder
from training.device import default_device, sent, sent_conditioning
from training.diffusion_loss import DiffusionLoss
from training.drawing import draw_sheet
from training.emoji import STYLES
from training.ending import run_command
from training.images import at_once, looked_at
from training.loop import Average, Budget, Moment, Run, RunError, Stateful, end_of, parts_of
from training.material import Material, emoji_material, own_material, spread
from training.network import fresh_transformer, transformer_config
from training.optim import Optimizers, rate_share
from training.options import (
    CACHE,
    OptionError,
    count,
    found,
    found_start,
    found_tokenizer,
    positive,
    refuse_beside_pictures,
    refuse_own_start,
    seed,
)
from training.parts import write_words
from training.recompute import recompute
from training.release import write_transformer
from training.teacher_forcing import Predicted, TeacherForcing, drop_conditions, maps_of

PIXELS = 16  # along one side of a latent position, as released
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

    def step(self, now: Moment) -> dict[str, Tensor]:
        """One update; random numbers from torch's own generator."""
        recipe, rows = self.recipe, self._rows()
        indices = sent(self.codes.indices[rows], self.device).long()
        rest = sent(self.codes.rest[rows], self.device).float()
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
        return {"loss": tokens.detach(), "residual": residual.detach(), "accuracy": right, "gradient": norm}

    def _rows(self) -> Tensor:
        """(B,): which pictures a step learns from."""
        size, single = self.recipe.batch, len(self.codes) - self.scenes
        rows = torch.randint(single, (size,))
        if not self.scenes:
            return rows
        composed = single + torch.randint(self.scenes, (size,))
        return torch.where(torch.rand(size) < self.recipe.scenes, composed, rows)

    def _conditioning(self, rows: Tensor) -> Conditioning:
        drawn = sent_conditioning(self.contexts.any(rows), self.device)
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
    def measure(self, rows: Tensor, most: int = 64) -> dict[str, float]:
        """Token accuracy of the averaged weights, shown uncorrupted tokens and the plainest caption: the gate."""
        teacher = TeacherForcing(cast(Transformer, self.average.network)).to(self.device)
        right = []
        for part in rows.split(at_once(most, PIXELS * self.quantizer.side)):
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
        raise RunError("none of the weights to start from fits this network")
    training.network.load_state_dict(mine | fitting)
    training.average.load_state_dict(mine | fitting)
    return sorted(mine.keys() - fitting.keys())


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command's options, those that depend on others filled in; what stays None was not given."""
    parser = argparse.ArgumentParser(prog="python -m training.transformer", description="Train the transformer.")
    parser.add_argument("--name", default="transformer", help="folder below .cache/training")
    parser.add_argument("--tokenizer", default="tokenizer", help="folder below .cache/training with tokenizer/ in it")
    parser.add_argument("--text", default="text_encoder", help="folder below .cache/training, or a path: any Qwen2")
    parser.add_argument("--start", help="begin with the averaged weights of this folder below .cache/training")
    parser.add_argument("--side", type=count, help="side of a picture in pixels: the tokenizer's, also by default")
    parser.add_argument("--pictures", help="a folder of pictures of your own with captions")
    parser.add_argument("--styles", nargs="+", choices=STYLES, help="of emoji art (default: flat)")
    parser.add_argument("--things", type=count, help="only so many, well-known ones first")
    parser.add_argument("--variants", type=count, help="captions of each picture (default: 12)")
    parser.add_argument("--scenes", type=int, help="so many composed scenes besides (default: 0)")
    parser.add_argument("--width", type=count, default=256, help="a multiple of 64")
    parser.add_argument("--depth", type=count, default=8)
    parser.add_argument("--diffusion-width", type=count, help="of the residual diffusion (default: 3/4 of --width)")
    parser.add_argument("--diffusion-depth", type=count, help="of the residual diffusion (default: 2)")
    parser.add_argument("--context-tokens", type=count, default=20)
    parser.add_argument("--steps", type=count, default=100_000, help="at most so many steps")
    parser.add_argument("--minutes", type=positive, help="at most so many minutes of training")
    parser.add_argument("--sitting", type=positive, help="stop after so many minutes in all; the next call goes on")
    parser.add_argument("--batch", type=count, default=Recipe.batch)
    parser.add_argument("--rate", type=positive, default=Recipe.rate)
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument(
        "--recompute", action=argparse.BooleanOptionalAction, default=False, help="less memory, a third more time"
    )
    options = parser.parse_args(arguments)
    refuse_beside_pictures(parser, options, ["styles", "things", "variants", "scenes"])
    refuse_own_start(parser, options)
    if options.width % 64:
        parser.error(f"--width: {options.width}: must be a multiple of 64, the width of a head")
    if options.scenes is not None and options.scenes < 0:
        parser.error(f"--scenes: {options.scenes}: must be at least 0")
    if options.pictures is None:
        options.styles = options.styles or ["flat"]
        options.variants = 12 if options.variants is None else options.variants
        options.scenes = options.scenes or 0
    return options


def config_of(options: argparse.Namespace, pictures: TokenizerConfig, context_dim: int) -> TransformerConfig:
    """The transformer that the options ask for, with the scales of the tokenizer."""
    return transformer_config(
        pictures,
        options.context_tokens,
        context_dim,
        options.width,
        options.depth,
        options.diffusion_width,
        options.diffusion_depth,
    )


def agreed_side(options: argparse.Namespace, pictures: TokenizerConfig) -> int:
    """The tokenizer's side. Raises OptionError if another one is asked for."""
    side = pictures.image_side
    if options.side not in (None, side):
        raise OptionError(
            f"--side {options.side}: --tokenizer {options.tokenizer} was trained at {side} pixels; leave --side out, "
            "or name another tokenizer"
        )
    return side


def material_of(options: argparse.Namespace) -> Material:
    """What the options ask to learn. Raises FolderError."""
    if options.pictures is not None:
        return own_material(Path(options.pictures), options.side)
    return emoji_material(options.side, options.styles, options.things, options.variants, options.scenes, options.seed)


def main() -> None:
    options = parse()
    until = end_of(options.sitting)
    torch.manual_seed(options.seed)
    device = default_device()
    start = found_start(options)
    base = Checkpoint.open(found_tokenizer(options.tokenizer))
    options.side = agreed_side(options, base.tokenizer_config)
    text = found("text", options.text)
    material = material_of(options)
    tokenizer = base.load_tokenizer(device=device)
    encoder = load_encoder(text, options.context_tokens, device)
    folder = CACHE / options.name
    made_with = {"tokenizer": digest_of_folder(base.tokenizer), "text_encoder": digest_of_folder(text)}
    codes = cached_codes(tokenizer, material.pixels, folder / "codes.pt", made_with["tokenizer"])
    config = config_of(options, tokenizer.config, encoder.width)
    training = TransformerTraining(
        fresh_transformer(config, tokenizer.config).to(device),
        tokenizer.quantize,
        codes,
        encode_words(encoder, material.words),
        Recipe(batch=options.batch, rate=options.rate),
        options.compile,
        material.scenes,
        options.recompute,
    )
    run = Run(folder, training.parts(), options.seed)
    threads = torch.get_num_threads()
    run.resume()  # first: a start that is refused is none
    run.log(event="started", options=vars(options), pictures=len(codes), threads=threads, made_with=made_with)
    if start is not None:
        fresh = warm_start(training, parts_of(start)["average"])
        run.log(event="warm start", begun_with=options.start, fresh=fresh)
    single = len(codes) - material.scenes
    gate = torch.tensor(spread(single, looked_at(256, options.side)))
    composed_gate = single + torch.tensor(spread(material.scenes, looked_at(128, options.side)), dtype=torch.long)
    average = cast(Transformer, training.average.network)

    def measure(now: Moment) -> Mapping[str, float]:
        draw_sheet(average, tokenizer, encoder, material.shown, folder / f"sheet-{now.step:06d}.png")
        scenes = {"scenes": training.measure(composed_gate)["token_accuracy"]} if material.scenes else {}
        return training.measure(gate) | scenes

    if not run.train(Budget(options.steps, options.minutes), training.step, measure, until=until):
        return
    if options.pictures is not None:
        write_words(folder, material.words)
    run.log(event="written", to=str(write_transformer(average, folder / "llm")))


if __name__ == "__main__":
    sys.exit(run_command(main))
