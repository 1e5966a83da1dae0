"""A folder's images at one size, decoded once into one raw file that trainings map.

`PATH.u8` holds uint8 (n, side, side, 3), `PATH.json` the side and each image's name, size and modification time. Both
are written again when an image was added or changed.
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

from training.data.folder import FolderError, captions_of, listed, names_of, read_square
from training.data.image_set import ImageSet, is_held_out
from training.data.packages import CACHE

SHARED = CACHE / "folders"
MAX_NAMED = 5
"""Warnings about small images name so many and count the others."""


@dataclass(frozen=True)
class CaptionedImages:
    """n images and the captions of each."""

    pixels: NDArray[np.uint8]
    """(n, side, side, 3), on white."""
    captions: list[list[str]]


def shared_cache(folder: Path, side: int) -> Path:
    """The cache that all trainings on this folder share."""
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]
    return SHARED / f"{folder.resolve().name[:40]}-{digest}-{side}"


def read_captioned(folder: Path, side: int, cache: Path) -> CaptionedImages:
    """Images with their captions, cropped to the middle square and resized to side x side. Raises FolderError."""
    captions = captions_of(folder)
    return CaptionedImages(_map(folder, list(captions), side, cache), list(captions.values()))


def read_images(folder: Path, side: int, cache: Path, min_train: int = 1) -> ImageSet:
    """Images without captions, one in twenty held out by its name's hash, at least one.

    Raises FolderError if fewer than `min_train` are left to train on.
    """
    names = names_of(folder)
    held = np.array([is_held_out(name) for name in names])
    if not held.any() or held.all():
        digests = [hashlib.sha256(os.fsencode(name)).hexdigest() for name in names]
        held[:] = False
        held[digests.index(min(digests))] = True
    if (left := int((~held).sum())) < min_train:
        raise FolderError(
            f"{folder}: {len(names)} images, {left} without those held out for measuring: fewer than the "
            f"{min_train} of a batch; add images or make --batch smaller"
        )
    pixels = _map(folder, names, side, cache)
    opaque = np.broadcast_to(np.uint8(255), pixels.shape[:3])
    return ImageSet(pixels, opaque, np.flatnonzero(~held), np.flatnonzero(held))


def _map(folder: Path, names: Sequence[str], side: int, cache: Path) -> NDArray[np.uint8]:
    """The images of these names, read-only. A cache that begins with them and holds more is used as it is."""
    raw, index = (cache.with_name(f"{cache.name}{suffix}") for suffix in (".u8", ".json"))
    wanted = [_stamp(folder / name, name) for name in names]
    cache.parent.mkdir(parents=True, exist_ok=True)
    with _locked(cache.with_name(f"{cache.name}.lock")):
        kept = _kept(raw, index, side)
        if kept[: len(wanted)] != wanted:
            _require_space(cache.parent, len(wanted) * side * side * 3)
            partial = raw.with_name(f"{raw.name}.partial")
            try:
                _write(folder, names, side, partial)
                index.unlink(missing_ok=True)  # the cache is valid again when the index is written
                partial.replace(raw)
            finally:
                partial.unlink(missing_ok=True)
            written = index.with_name(f"{index.name}.partial")
            written.write_text(json.dumps({"side": side, "images": wanted}))
            written.replace(index)
            kept = wanted
        return np.memmap(raw, np.uint8, "r", shape=(len(kept), side, side, 3))[: len(wanted)]


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Waits until no other process writes this cache; a killed process releases the lock."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _require_space(folder: Path, wanted: int) -> None:
    """Raises FolderError before hours of work end on a full disk."""
    if (free := shutil.disk_usage(folder).free) < wanted:
        raise FolderError(f"{folder}: {free / 1e9:.1f} GB are free, and the images take {wanted / 1e9:.1f} GB")


def _stamp(path: Path, name: str) -> list[str | int]:
    """Name, size and time: differ if the image was changed. Raises FolderError."""
    try:
        found = path.stat()
    except OSError as error:
        raise FolderError(f"{path}: cannot be read as an image: {error.strerror}") from None
    return [name, found.st_size, found.st_mtime_ns]


def _kept(raw: Path, index: Path, side: int) -> list[list[str | int]]:
    """The stamps of the images in a cache; empty if it is incomplete or of another side."""
    try:
        content = json.loads(index.read_text())
        stamps: list[list[str | int]] = content["images"]
        whole = content["side"] == side and raw.stat().st_size == len(stamps) * side * side * 3
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return stamps if whole else []


def _write(folder: Path, names: Sequence[str], side: int, raw: Path) -> None:
    """Decodes every image into the raw file. Raises FolderError naming all that cannot be read, after trying all."""
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
        raise FolderError(listed(broken, f"{folder}: {{}} more cannot be read"))
    if small:
        print(
            listed(small, f"{folder}: {{}} more are smaller than {side} pixels and enlarged", MAX_NAMED),
            file=sys.stderr,
        )
