"""The transformer's training command: tokens and residuals first, then the residual head alone.

A run lies in `RUNS/NAME`: state.pt, log.jsonl, samples-*.png, and at the end `llm/` in the released layout; the head's
stage in `RUNS/NAME/head`. The same command resumes it. It needs a trained tokenizer and a text encoder.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from model.checkpoint import Checkpoint, digest_of_folder
from model.config import TokenizerConfig, TransformerConfig
from model.text import TextEncoder
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.checkpoint.export import write_transformer
from training.checkpoint.parts import write_words
from training.core.device import default_device
from training.core.images import sample_size
from training.core.loop import STATE, Budget, Progress, Run, deadline_after, saved_parts
from training.core.options import (
    OptionError,
    add_run_options,
    count,
    count_or_zero,
    find_folder,
    find_init,
    find_tokenizer,
    positive,
    refuse_own_start,
)
from training.core.run_log import loggable
from training.data.dataset import Dataset, DatasetSource, FolderDataset, spread
from training.data.text_cache import cached_captions, load_encoder
from training.data.token_cache import cached_tokens
from training.transformer.network import fresh_transformer, transformer_config
from training.transformer.residual import add_head_options, head_stage
from training.transformer.sampling import draw_sample_grid
from training.transformer.train import TrainConfig, TrainingData, TransformerTraining, warm_start

HEAD_WIDTH = 64  # of an attention head


def parse(source: DatasetSource, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's options; None stands for options that were not given."""
    prog = f"python -m {source.package}.transformer"
    parser = argparse.ArgumentParser(prog=prog, description="Train the transformer.")
    source.add_options(parser)
    add_run_options(parser, "transformer")
    parser.add_argument("--tokenizer", default="tokenizer", help="run or checkpoint with tokenizer/ in it")
    parser.add_argument("--text", default="text_encoder", help="folder below --runs, or a path: any Qwen2")
    parser.add_argument("--side", type=count, help="side of an image in pixels (default: the tokenizer's)")
    _add_shape(parser)
    parser.add_argument(
        "--steps", type=count_or_zero, default=100_000, help="maximum steps; 0: only the head (default: %(default)s)"
    )
    parser.add_argument("--batch", type=count, default=TrainConfig.batch, help="images a step (default: %(default)s)")
    parser.add_argument("--rate", type=positive, default=TrainConfig.rate, help="learning rate (default: %(default)s)")
    parser.add_argument(
        "--residual-weight", type=positive, default=TrainConfig.residual_weight, help="of the residuals' loss"
    )
    parser.add_argument(
        "--regression-weight", type=positive, default=TrainConfig.regression_weight, help="of the residuals' regression"
    )
    parser.add_argument("--head-rate", type=positive, default=TrainConfig.head_rate, help="of the head, times --rate")
    add_head_options(parser)
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
    if options.width % HEAD_WIDTH:
        parser.error(f"--width: {options.width}: must be a multiple of {HEAD_WIDTH}, the width of an attention head")
    return options


def _add_shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", type=count, default=256, help="a multiple of 64 (default: %(default)s)")
    parser.add_argument("--depth", type=count, default=8, help="blocks (default: %(default)s)")
    parser.add_argument("--diffusion-width", type=count, help="of the residual head (default: 3/4 of --width)")
    parser.add_argument("--diffusion-depth", type=count, help="of the residual head (default: 2)")
    parser.add_argument("--context-tokens", type=count, default=20, help="prompt slots (default: %(default)s)")


def config_of(options: argparse.Namespace, tokenizer: TokenizerConfig, context_dim: int) -> TransformerConfig:
    """The shape of the transformer that the options name, with the tokenizer's scales."""
    return transformer_config(
        tokenizer,
        options.context_tokens,
        context_dim,
        options.width,
        options.depth,
        options.diffusion_width,
        options.diffusion_depth,
    )


def agreed_side(options: argparse.Namespace, tokenizer: TokenizerConfig) -> int:
    """The tokenizer's side. Raises OptionError if --side names another."""
    side = tokenizer.image_side
    if options.side not in (None, side):
        raise OptionError(
            f"--side {options.side}: --tokenizer {options.tokenizer} was trained at {side} pixels; leave --side out, "
            "or name another tokenizer"
        )
    return side


def averaged_weights(folder: Path) -> Mapping[str, Tensor]:
    """Of a run, or of a whole checkpoint."""
    if (folder / STATE).exists():
        return cast(Mapping[str, Tensor], saved_parts(folder)["average"])
    return Checkpoint.open(folder).load_transformer().state_dict()


@dataclass(frozen=True)
class Parts:
    """What a transformer is trained with."""

    tokenizer: HybridTokenizer
    encoder: TextEncoder
    dataset: Dataset
    data: TrainingData


def load_parts(
    options: argparse.Namespace, source: DatasetSource, device: torch.device
) -> tuple[Parts, dict[str, str]]:
    """The parts that the options name, and the digests of tokenizer and text encoder. Raises ModelError."""
    base = Checkpoint.open(find_tokenizer(options.tokenizer, options.runs))
    options.side = agreed_side(options, base.tokenizer_config)
    text = find_folder("text", options.text, options.runs)
    dataset = source.load(options)
    tokenizer = base.load_tokenizer(device=device)
    encoder = load_encoder(text, options.context_tokens, device)
    made_with = {"tokenizer": digest_of_folder(base.tokenizer), "text_encoder": digest_of_folder(text)}
    folder = options.runs / options.name
    tokens = cached_tokens(tokenizer, dataset.pixels, folder / "tokens.pt", made_with["tokenizer"])
    captions = cached_captions(encoder, dataset.captions, folder / "captions.pt", made_with["text_encoder"])
    return Parts(tokenizer, encoder, dataset, TrainingData(tokens, captions, dataset.scenes)), made_with


def train(options: argparse.Namespace, source: DatasetSource, deadline: float) -> None:
    """Trains, or resumes, and writes the transformer if the budget's end is reached before the deadline."""
    device, origin = default_device(), find_init(options)
    parts, made_with = load_parts(options, source, device)
    config = TrainConfig(
        batch=options.batch,
        rate=options.rate,
        residual_weight=options.residual_weight,
        regression_weight=options.regression_weight,
        head_rate=options.head_rate,
        compiled=options.compile,
        checkpointed=options.activation_checkpointing,
    )
    shape = config_of(options, parts.tokenizer.config, parts.encoder.width)
    network = fresh_transformer(shape, parts.tokenizer.config).to(device)
    training = TransformerTraining(network, parts.tokenizer.quantize, parts.data, config)
    run = Run(options.runs / options.name, training.parts(), options.seed)
    run.resume()  # before the start is logged: a start that is refused is none
    run.log(
        event="started",
        module=f"{source.package}.transformer",
        options=loggable(options),
        images=len(parts.data.tokens),
        threads=torch.get_num_threads(),
        made_with=made_with,
    )
    if origin is not None:
        fresh = warm_start(training, averaged_weights(origin))
        run.log(event="initialised", init_from=options.init_from, fresh=fresh)
    budget, measure = Budget(options.steps, options.minutes), _measure(training, parts, run)
    if not run.train(budget, training.step, measure, deadline=deadline):
        return
    average = cast(Transformer, training.average.network)
    if head_stage(average, parts.tokenizer.quantize, parts.data, run, options, deadline):
        write_words(run.folder, parts.dataset.captions)
        run.log(event="written", to=str(write_transformer(average, run.folder / "llm")))


def _measure(training: TransformerTraining, parts: Parts, run: Run) -> Callable[[Progress], Mapping[str, float]]:
    side, data = parts.tokenizer.config.image_side, parts.data
    evaluated = torch.tensor(spread(data.singles, sample_size(256, side)))
    composed = data.singles + torch.tensor(spread(data.scenes, sample_size(128, side)), dtype=torch.long)
    average = cast(Transformer, training.average.network)

    def measure(now: Progress) -> Mapping[str, float]:
        path = run.folder / f"samples-{now.step:06d}.png"
        draw_sample_grid(average, parts.tokenizer, parts.encoder, parts.dataset.shown, path)
        scenes = {"scenes": training.measure(composed)["token_accuracy"]} if data.scenes else {}
        return training.measure(evaluated) | scenes

    return measure


def main(source: DatasetSource | None = None, arguments: Sequence[str] | None = None) -> None:
    """The command, for a dataset of `source`: by default a folder's."""
    source = source or FolderDataset()
    options = parse(source, arguments)
    torch.manual_seed(options.seed)
    train(options, source, deadline_after(options.time_limit))
