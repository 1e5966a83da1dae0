"""Teaches a checkpoint a folder of captioned pictures, in one command. Knows no emoji.

`python -m training.finetune FOLDER --checkpoint checkpoints/NAME -o checkpoints/MINE` reads pictures with their words
(`cat.png` beside `cat.txt`, one caption a line; or `captions.tsv` with a file name and a caption a line), and goes on
from the checkpoint's transformer. Tokenizer, text encoder and safety model stay as they are and are copied. What the
checkpoint knew is forgotten slowly; put some of its own pictures into the folder to keep them. Resumes by itself.
"""

import argparse
import csv
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.checkpoint import Checkpoint
from model.errors import ModelError
from model.transformer import Transformer
from training.codes import cached_codes
from training.contexts import encode_words
from training.drawing import draw_sheet
from training.loop import Budget, Moment, Run, default_device
from training.release import write_transformer
from training.transformer import Recipe, TransformerTraining, spread

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
TABLE = "captions.tsv"
COPIED = ("tokenizer", "text_encoder", "safety")


class FolderError(ModelError):
    """A folder that cannot be trained on; the message names the file."""


@dataclass(frozen=True)
class Captioned:
    """n pictures and the captions of each."""

    pixels: NDArray[np.uint8]
    """(n, side, side, 3), on white."""
    words: list[list[str]]


def read_folder(folder: Path, side: int) -> Captioned:
    """Reads pictures and captions; pictures are cut square in the middle and brought to side x side pixels."""
    if not folder.is_dir():
        raise FolderError(f"{folder}: no such folder")
    captions = _captions_of_table(folder / TABLE) if (folder / TABLE).exists() else _captions_beside(folder)
    if not captions:
        raise FolderError(f"{folder}: no pictures ({', '.join(SUFFIXES)}) with captions in it")
    pixels = np.stack([_read_picture(folder / name, side) for name in captions])
    return Captioned(pixels, list(captions.values()))


def _captions_of_table(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with path.open(newline="") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t"), 1):
            if len(row) != 2 or not row[1].strip():
                raise FolderError(f"{path}, line {number}: expected a file name, a tab and a caption, got {row}")
            if not (path.parent / row[0]).is_file():
                raise FolderError(f"{path}, line {number}: {row[0]}: no such picture")
            found.setdefault(row[0], []).append(row[1].strip())
    return found


def _captions_beside(folder: Path) -> dict[str, list[str]]:
    found = {}
    for picture in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        beside = picture.with_suffix(".txt")
        if not beside.exists():
            raise FolderError(f"{picture}: no caption; expected {beside.name} beside it, or {TABLE} in the folder")
        lines = [line.strip() for line in beside.read_text().splitlines() if line.strip()]
        if not lines:
            raise FolderError(f"{beside}: empty; expected a caption a line")
        found[picture.name] = lines
    return found


def _read_picture(path: Path, side: int) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            picture = image.convert("RGBA")
    except (UnidentifiedImageError, OSError) as error:
        raise FolderError(f"{path}: not a picture that can be read: {error}") from None
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    width, height = white.size
    square = min(width, height)
    left, top = (width - square) // 2, (height - square) // 2
    cut = white.convert("RGB").crop((left, top, left + square, top + square))
    return np.asarray(cut.resize((side, side), Image.Resampling.LANCZOS))


def finetune(checkpoint: Checkpoint, folder: Path, out: Path, budget: Budget, recipe: Recipe) -> float:
    """Writes the new checkpoint to `out`; returns its token accuracy on the folder."""
    device = default_device()
    given = read_folder(folder, checkpoint.tokenizer_config.picture_side)
    tokenizer, encoder = checkpoint.load_tokenizer(device=device), checkpoint.load_text_encoder(device=device)
    state = out / "training"
    codes = cached_codes(tokenizer, given.pixels, state / "codes.pt", checkpoint.digest_of("tokenizer"))
    network = checkpoint.load_transformer(device=device).train().requires_grad_(True)
    training = TransformerTraining(network, tokenizer.quantize, codes, encode_words(encoder, given.words), recipe)
    run = Run(state, training.parts())
    run.log(event="started", pictures=len(codes))
    run.resume()
    average = cast(Transformer, training.average.network)
    shown = [given.words[i][0] for i in spread(len(codes), 32)]

    def measure(now: Moment) -> Mapping[str, float]:
        draw_sheet(average, tokenizer, encoder, shown, out / "training" / f"sheet-{now.step:06d}.png")
        return training.measure(torch.tensor(spread(len(codes), 256)))

    run.train(budget, training.step, measure)
    write_transformer(average, out / "llm")
    _copy_rest(checkpoint, out, given.words)
    return training.measure(torch.tensor(spread(len(codes), 256)))["token_accuracy"]


def _copy_rest(checkpoint: Checkpoint, out: Path, words: list[list[str]]) -> None:
    for part in COPIED:
        source = getattr(checkpoint, part)
        if source.is_dir():
            shutil.copytree(source, out / part, dirs_exist_ok=True)
    (out / "prompts.txt").write_text("".join(f"{captions[0]}\n" for captions in words))
    vocabulary = sorted({word for captions in words for caption in captions for word in caption.lower().split()})
    (out / "vocabulary.txt").write_text("".join(f"{word}\n" for word in vocabulary))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.finetune", description="Fine-tune on captioned pictures.")
    parser.add_argument("folder", type=Path, help="pictures with captions: NAME.png and NAME.txt, or captions.tsv")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the checkpoint to begin with")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--minutes", type=float, help="at most so many minutes of training")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    options = parser.parse_args(arguments)
    if options.output.resolve() == options.checkpoint.resolve():
        parser.error("--output: the checkpoint to begin with; choose another folder")
    try:
        accuracy = finetune(
            Checkpoint.open(options.checkpoint),
            options.folder,
            options.output,
            Budget(options.steps, options.minutes),
            Recipe(batch=options.batch, rate=options.rate),
        )
    except ModelError as error:
        parser.error(str(error))
    print(f"{options.output}: token accuracy {accuracy:.3f} (below 0.9 pictures come out as blobs: train on)")


if __name__ == "__main__":
    main()
