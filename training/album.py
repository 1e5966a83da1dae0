"""A folder's pictures at one size in one raw file, which is mapped and not read. Knows no networks.

`PATH.u8` (uint8, n x side x side x 3) and `PATH.json` (side, and each picture's name, size and time) are made once, and
again when a picture was added or changed.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from training.data import Pictures, Thing, is_held_out
from training.folder import FolderError, captions_of, names_of, read_square
from training.packages import CACHE

ALBUMS = CACHE / "folders"
NAMED = 5
"""So many of the pictures that cannot be read, or are smaller than asked for, are named, the others counted."""


@dataclass(frozen=True)
class Captioned:
    """n pictures and the captions of each."""

    pixels: NDArray[np.uint8]
    """(n, side, side, 3), on white."""
    words: list[list[str]]


def shared_album(folder: Path, side: int) -> Path:
    """Where all trainings on this folder keep its pictures."""
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]
    return ALBUMS / f"{folder.resolve().name[:40]}-{digest}-{side}"


def read_captioned(folder: Path, side: int, album: Path) -> Captioned:
    """Pictures with their captions; pictures are cut square in the middle and brought to side x side pixels."""
    captions = captions_of(folder)
    return Captioned(_map(folder, list(captions), side, album), list(captions.values()))


def read_pictures(folder: Path, side: int, album: Path, least: int = 1) -> Pictures:
    """Pictures that need no captions, one in twenty held out by its name's hash, one at least.

    Raises FolderError if fewer than `least` are left to train on.
    """
    names = names_of(folder)
    held = np.array([is_held_out(name) for name in names])
    if not held.any() or held.all():
        digests = [hashlib.sha256(os.fsencode(name)).hexdigest() for name in names]
        held[:] = False
        held[digests.index(min(digests))] = True
    if (left := int((~held).sum())) < least:
        raise FolderError(
            f"{folder}: {len(names)} pictures, {left} without those held out to measure with: fewer than the "
            f"{least} of a batch; add pictures or make --batch smaller"
        )
    pixels = _map(folder, names, side, album)
    opaque = np.broadcast_to(np.uint8(255), pixels.shape[:3])
    things = [Thing("own", Path(name).stem, (), "", "", name) for name in names]
    return Pictures(pixels, opaque, things, np.flatnonzero(~held), np.flatnonzero(held))


def _map(folder: Path, names: Sequence[str], side: int, album: Path) -> NDArray[np.uint8]:
    """The pictures of these names, read-only. An album that begins with them and holds more will do."""
    raw, index = (album.with_name(f"{album.name}{suffix}") for suffix in (".u8", ".json"))
    wanted = [_stamp(folder / name, name) for name in names]
    album.parent.mkdir(parents=True, exist_ok=True)
    with _alone(album.with_name(f"{album.name}.lock")):
        kept = _kept(raw, index, side)
        if kept[: len(wanted)] != wanted:
            _require_room(album.parent, len(wanted) * side * side * 3)
            partial = raw.with_name(f"{raw.name}.partial")
            try:
                _write(folder, names, side, partial)
                index.unlink(missing_ok=True)  # until it is there again, nothing is
                partial.replace(raw)
            finally:
                partial.unlink(missing_ok=True)
            written = index.with_name(f"{index.name}.partial")
            written.write_text(json.dumps({"side": side, "pictures": wanted}))
            written.replace(index)
            kept = wanted
        return np.memmap(raw, np.uint8, "r", shape=(len(kept), side, side, 3))[: len(wanted)]


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Waits until no other training makes this album; one that is killed lets go."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _require_room(folder: Path, wanted: int) -> None:
    """Raises FolderError for a disk that would be full hours later."""
    if (free := shutil.disk_usage(folder).free) < wanted:
        raise FolderError(f"{folder}: {free / 1e9:.1f} GB are free, and the pictures take {wanted / 1e9:.1f} GB")


def _stamp(path: Path, name: str) -> list[str | int]:
    """What tells a picture from a changed one. Raises FolderError."""
    try:
        found = path.stat()
    except OSError as error:
        raise FolderError(f"{path}: not a picture that can be read: {error.strerror}") from None
    return [name, found.st_size, found.st_mtime_ns]


def _kept(raw: Path, index: Path, side: int) -> list[list[str | int]]:
    """The stamps of the pictures in an album; none if it is not whole or not of this side."""
    try:
        content = json.loads(index.read_text())
        stamps: list[list[str | int]] = content["pictures"]
        whole = content["side"] == side and raw.stat().st_size == len(stamps) * side * side * 3
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return stamps if whole else []


def _write(folder: Path, names: Sequence[str], side: int, raw: Path) -> None:
    """Reads every picture into the raw file. Raises FolderError with all that cannot be read, once all were tried."""
    small: list[str] = []
    broken: list[str] = []
    with raw.open("wb") as file:
        for name in tqdm(names, desc=f"{folder.name} {side} px", mininterval=10):
            try:
                square = read_square(folder / name)
            except FolderError as error:
                broken.append(str(error))
                continue
            if square.width < side:
                small.append(f"{folder / name}: {square.width} pixels, enlarged to {side}x{side}")
            if not broken:
                file.write(square.resize((side, side), Image.Resampling.LANCZOS).tobytes())
    if broken:
        raise FolderError("\n".join(_some(broken, f"{folder}: {{}} more cannot be read")))
    for line in _some(small, f"{folder}: {{}} more are smaller than {side} pixels and enlarged"):
        print(line, file=sys.stderr)


def _some(lines: list[str], others: str) -> list[str]:
    """The first lines, and how many others there are."""
    return lines[:NAMED] + ([others.format(len(lines) - NAMED)] if lines[NAMED:] else [])
