"""Teaches a checkpoint a folder of captioned pictures, in one command. Knows no emoji.

`python -m training.finetune FOLDER --checkpoint checkpoints/NAME -o checkpoints/MINE` reads pictures with their words
(`cat.png` beside `cat.txt`, one caption a line; or `captions.tsv` with a file name and a caption a line), and goes on
from the checkpoint's transformer. Tokenizer, text encoder and safety model stay as they are and are copied. What the
checkpoint knew is forgotten slowly; put some of its own pictures into the folder to keep them. Resumes by itself.
"""

import argparse
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch

from model.checkpoint import Checkpoint
from model.errors import ModelError
from model.transformer import Transformer
from training.album import Captioned, read_captioned
from training.codes import cached_codes
from training.contexts import encode_words
from training.device import default_device
from training.drawing import draw_sheet
from training.folder import FolderError
from training.images import looked_at
from training.loop import STATE, Budget, Moment, Run
from training.material import spread
from training.options import count, positive
from training.parts import write_words
from training.release import write_transformer
from training.transformer import Recipe, TransformerTraining

COPIED = ("tokenizer", "text_encoder", "safety")
ORIGIN = "origin.txt"
"""Beside the state: what it was begun with."""


def finetune(checkpoint: Checkpoint, folder: Path, out: Path, budget: Budget, recipe: Recipe) -> float:
    """Writes the new checkpoint to `out`; returns its token accuracy on the folder."""
    device = default_device()
    state = out / "training"
    given = read_captioned(folder, checkpoint.tokenizer_config.image_side, state / "pictures")
    tokenizer, encoder = checkpoint.load_tokenizer(device=device), checkpoint.load_text_encoder(device=device)
    _require_same_origin(state, checkpoint.digest, given)
    codes = cached_codes(tokenizer, given.pixels, state / "codes.pt", checkpoint.digest_of("tokenizer"))
    network = checkpoint.load_transformer(device=device).train().requires_grad_(True)
    training = TransformerTraining(network, tokenizer.quantize, codes, encode_words(encoder, given.words), recipe)
    run = Run(state, training.parts())
    run.log(event="started", pictures=len(codes))
    run.resume()
    average = cast(Transformer, training.average.network)
    side = tokenizer.config.image_side
    gate = torch.tensor(spread(len(codes), looked_at(256, side)))
    shown = [given.words[i][0] for i in spread(len(codes), looked_at(32, side))]

    def measure(now: Moment) -> Mapping[str, float]:
        draw_sheet(average, tokenizer, encoder, shown, out / "training" / f"sheet-{now.step:06d}.png")
        return training.measure(gate)

    run.train(budget, training.step, measure)
    write_transformer(average, out / "llm")
    _copy_rest(checkpoint, out, given.words)
    return training.measure(gate)["token_accuracy"]


def _require_same_origin(state: Path, digest: str, given: Captioned) -> None:
    """A run goes on with what it was begun with: anything else would be read into a state that knows nothing of it."""
    total = hashlib.sha256(digest.encode() + json.dumps(given.words).encode())
    total.update(np.ascontiguousarray(given.pixels).data)
    origin = total.hexdigest()
    path = state / ORIGIN
    if (state / STATE).exists() and path.exists() and path.read_text() != origin:
        raise FolderError(
            f"{state}: was begun with other pictures, captions or another checkpoint; "
            "delete it to begin anew, or choose another --output"
        )
    state.mkdir(parents=True, exist_ok=True)
    path.write_text(origin)


def _copy_rest(checkpoint: Checkpoint, out: Path, words: list[list[str]]) -> None:
    for part in COPIED:
        source = getattr(checkpoint, part)
        if source.is_dir():
            shutil.copytree(source, out / part, dirs_exist_ok=True)
    write_words(out, words)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.finetune", description="Fine-tune on captioned pictures.")
    parser.add_argument("folder", type=Path, help="pictures with captions: NAME.png and NAME.txt, or captions.tsv")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the checkpoint to begin with")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument("--steps", type=count, default=600, help="of training in all (default: %(default)s)")
    parser.add_argument("--minutes", type=positive, help="at most so many minutes of training")
    parser.add_argument("--batch", type=count, default=16, help="pictures a step (default: %(default)s)")
    parser.add_argument("--rate", type=positive, default=1e-3, help="of learning (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.output.resolve() == options.checkpoint.resolve():
        parser.error("--output: the checkpoint to begin with; choose another folder")
    if options.output.exists() and not options.output.is_dir():
        parser.error(f"--output: {options.output}: not a folder")
    try:
        accuracy = finetune(
            Checkpoint.open(options.checkpoint),
            options.folder,
            options.output,
            Budget(options.steps, options.minutes),
            Recipe(batch=options.batch, rate=options.rate),
        )
    except ModelError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; the same command goes on from the state that was saved last\n")
    print(f"{options.output}: token accuracy {accuracy:.3f} (below 0.9 pictures come out as blobs: train on)")


if __name__ == "__main__":
    main()
