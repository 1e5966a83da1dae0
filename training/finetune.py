"""Teaches a checkpoint a folder of captioned pictures, in one command. Knows no emoji.

`python -m training.finetune FOLDER --checkpoint checkpoints/NAME -o checkpoints/MINE` reads pictures with their words
(`cat.png` beside `cat.txt`, one caption a line; or `captions.tsv` with a file name and a caption a line), and goes on
from the checkpoint's transformer. Tokenizer, text encoder and safety model stay as they are and are copied. What the
checkpoint knew is forgotten slowly; put some of its own pictures into the folder to keep them. Resumes by itself.
"""

import argparse
import csv
import hashlib
import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from training.loop import STATE, Budget, Moment, Run, default_device
from training.release import write_transformer
from training.transformer import Recipe, TransformerTraining, spread

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
TABLE = "captions.tsv"
COPIED = ("tokenizer", "text_encoder", "safety")
ORIGIN = "origin.txt"
"""Beside the state: what it was begun with."""


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
    with _readable(path), path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t", strict=True), 1):
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
        with _readable(beside):
            text = beside.read_text("utf-8-sig")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            raise FolderError(f"{beside}: empty; expected a caption a line")
        found[picture.name] = lines
    return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Names the file that is not text in UTF-8, or whose quotes do not close."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise FolderError(f"{path}: not text in UTF-8: {error.reason} at byte {error.start}") from None
    except csv.Error as error:
        raise FolderError(f"{path}: not a table with tabs: {error}") from None


def _read_picture(path: Path, side: int) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            picture = image.convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise FolderError(f"{path}: not a picture that can be read: {error}") from None
    if min(picture.size) < side:
        print(f"{path}: {picture.width}x{picture.height} pixels, enlarged to {side}x{side}", file=sys.stderr)
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
    _require_same_origin(state, checkpoint.digest, given)
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


def _require_same_origin(state: Path, digest: str, given: Captioned) -> None:
    """A run goes on with what it was begun with: anything else would be read into a state that knows nothing of it."""
    words = json.dumps(given.words).encode()
    origin = hashlib.sha256(digest.encode() + words + given.pixels.tobytes()).hexdigest()
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
    (out / "prompts.txt").write_text("".join(f"{captions[0]}\n" for captions in words))
    vocabulary = sorted({word for captions in words for caption in captions for word in caption.lower().split()})
    (out / "vocabulary.txt").write_text("".join(f"{word}\n" for word in vocabulary))


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: must be a number over 0")
    return value


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.finetune", description="Fine-tune on captioned pictures.")
    parser.add_argument("folder", type=Path, help="pictures with captions: NAME.png and NAME.txt, or captions.tsv")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the checkpoint to begin with")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument("--steps", type=_count, default=600, help="of training in all (default: %(default)s)")
    parser.add_argument("--minutes", type=_positive, help="at most so many minutes of training")
    parser.add_argument("--batch", type=_count, default=16, help="pictures a step (default: %(default)s)")
    parser.add_argument("--rate", type=_positive, default=1e-3, help="of learning (default: %(default)s)")
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
