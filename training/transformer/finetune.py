"""Fine-tunes a checkpoint on a folder of captioned images, in one command.

`python -m training.transformer.finetune FOLDER --checkpoint checkpoints/NAME -o checkpoints/MINE` reads images with
captions (`cat.png` beside `cat.txt`, one caption a line; or `captions.tsv` with a file name and a caption a line) and
trains the checkpoint's transformer on them, then its residual head. Tokenizer, text encoder and safety model are
copied. The checkpoint slowly forgets what it knew unless some of its own images are in the folder. The same command
resumes.
"""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch

from model.checkpoint import Checkpoint
from model.transformer import Transformer
from training.checkpoint.export import write_transformer
from training.checkpoint.parts import write_words
from training.core.cli import run_command
from training.core.device import default_device
from training.core.images import sample_size
from training.core.loop import STATE, Budget, Progress, Run, deadline_after
from training.core.options import count, positive
from training.data.dataset import spread
from training.data.folder import FolderError
from training.data.image_cache import CaptionedImages, read_captioned
from training.data.text_cache import encode_captions
from training.data.token_cache import cached_tokens
from training.transformer.residual import add_head_options, head_stage
from training.transformer.sampling import draw_sample_grid
from training.transformer.train import TrainConfig, TrainingData, TransformerTraining

COPIED = ("tokenizer", "text_encoder", "safety")
ORIGIN = "origin.txt"
"""Beside the state: a digest of the images and the checkpoint that it was started with."""


def finetune(checkpoint: Checkpoint, options: argparse.Namespace) -> float:
    """Writes the new checkpoint to `options.output`; returns its token accuracy on the folder."""
    device, out = default_device(), options.output
    state, side = out / "training", checkpoint.tokenizer_config.image_side
    given = read_captioned(options.folder, side, state / "images")
    tokenizer, encoder = checkpoint.load_tokenizer(device=device), checkpoint.load_text_encoder(device=device)
    _require_same_origin(state, checkpoint.digest, given)
    tokens = cached_tokens(tokenizer, given.pixels, state / "tokens.pt", checkpoint.digest_of("tokenizer"))
    data = TrainingData(tokens, encode_captions(encoder, given.captions))
    network = checkpoint.load_transformer(device=device).train().requires_grad_(True)
    config = TrainConfig(batch=options.batch, rate=options.rate)
    training = TransformerTraining(network, tokenizer.quantize, data, config)
    run = Run(state, training.parts())
    run.log(event="started", images=len(tokens))
    run.resume()
    average = cast(Transformer, training.average.network)
    evaluated = torch.tensor(spread(len(tokens), sample_size(256, side)))
    shown = [given.captions[i][0] for i in spread(len(tokens), sample_size(32, side))]

    def measure(now: Progress) -> Mapping[str, float]:
        draw_sample_grid(average, tokenizer, encoder, shown, state / f"samples-{now.step:06d}.png")
        return training.measure(evaluated)

    never = deadline_after(None)
    run.train(Budget(options.steps, options.minutes), training.step, measure, deadline=never)
    head_stage(average, tokenizer.quantize, data, run, options, never)
    write_transformer(average, out / "llm")
    _copy_rest(checkpoint, out, given.captions)
    return training.measure(evaluated)["token_accuracy"]


def _require_same_origin(state: Path, digest: str, given: CaptionedImages) -> None:
    """Raises FolderError if the saved state was started with other images, captions or another checkpoint."""
    total = hashlib.sha256(digest.encode() + json.dumps(given.captions).encode())
    total.update(np.ascontiguousarray(given.pixels).data)
    origin = total.hexdigest()
    path = state / ORIGIN
    if (state / STATE).exists() and path.exists() and path.read_text() != origin:
        raise FolderError(
            f"{state}: was started with other images, captions or another checkpoint; "
            "delete it to start again, or choose another --output"
        )
    state.mkdir(parents=True, exist_ok=True)
    path.write_text(origin)


def _copy_rest(checkpoint: Checkpoint, out: Path, captions: list[list[str]]) -> None:
    for part in COPIED:
        source = getattr(checkpoint, part)
        if source.is_dir():
            shutil.copytree(source, out / part, dirs_exist_ok=True)
    write_words(out, captions)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m training.transformer.finetune", description="Fine-tune a checkpoint on captioned images."
    )
    parser.add_argument("folder", type=Path, help="images with captions: NAME.png and NAME.txt, or captions.tsv")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the checkpoint to start from")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument("--steps", type=count, default=600, help="total steps (default: %(default)s)")
    parser.add_argument("--minutes", type=positive, help="maximum minutes of training")
    parser.add_argument("--batch", type=count, default=16, help="images a step (default: %(default)s)")
    parser.add_argument("--rate", type=positive, default=1e-3, help="learning rate (default: %(default)s)")
    add_head_options(parser, steps=1000)
    options = parser.parse_args(arguments)
    if options.output.resolve() == options.checkpoint.resolve():
        parser.error("--output: is the checkpoint to start from; choose another folder")
    if options.output.exists() and not options.output.is_dir():
        parser.error(f"--output: {options.output}: not a folder")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    accuracy = finetune(Checkpoint.open(options.checkpoint), options)
    print(f"{options.output}: token accuracy {accuracy:.3f} (below 0.9 images come out as blobs: train on)")


if __name__ == "__main__":
    sys.exit(run_command(main))
