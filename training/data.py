"""The pictures to train on, built once and loaded fast; knows nothing of captions or networks.

Build:  `python -m training.data [--side 128] [--styles flat noto ...]`: one file per style, flat first; a style that
is on disk is not built again. Files: `.cache/data/SIDE/STYLE.u8` (raw uint8, n x side x side x 3), `STYLE.alpha.u8`
(n x side x side) and `STYLE.json` (the index, written last). `--pack` also writes
`.cache/data/SIDE/packs/STYLE-NN.pack` (webp, at most 25 MB each) for another machine: `load_pictures` unpacks them
there when the `.u8` files are missing.

Load:   `pictures = load_pictures(side=128, styles=("flat",))`
        `pictures.pixels`    uint8 (n, side, side, 3), white background; a read-only memory map for one style
        `pictures.alpha`     uint8 (n, side, side), opacity, for composing scenes
        `pictures.things`    list of n `Thing(style, name, tags, group, subgroup, hexcode)`
        `pictures.train`, `pictures.held_out`  index arrays; one thing is held out in all styles or in none (about 5%)
The held-out things measure the tokenizer. A transformer that shall know every thing trains on all indices.
"""

import argparse
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.emoji import STYLES, Emoji, read_emoji, read_icons, strip_selector
from training.ending import run_command
from training.packages import CACHE, fetch
from training.render import Pixels, encode_webp, is_blank, on_white, render_image, render_svg, without_white

PIECE_BYTES = 25_000_000
SIDES = (128, 256, 512, 1024)
"""Sides in pixels that a tokenizer can be trained on."""


@dataclass(frozen=True)
class Thing:
    """What one picture shows, and in which style."""

    style: str
    name: str
    tags: tuple[str, ...]
    group: str
    subgroup: str
    hexcode: str


@dataclass(frozen=True)
class Pictures:
    """Pixels uint8 (n, side, side, 3) on white, their opacity, the n things, and the fixed split as index arrays."""

    pixels: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    things: list[Thing]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]


def is_held_out(hexcode: str) -> bool:
    """The fixed split: one in twenty things by the hash of its code points."""
    return hashlib.sha256(os.fsencode(hexcode)).digest()[0] % 20 == 0


def load_pictures(side: int = 128, styles: Sequence[str] = STYLES, cache: Path = CACHE) -> Pictures:
    """All pictures of the styles; they must have been built (or their packs carried here)."""
    parts: list[NDArray[np.uint8]] = []
    opacities: list[NDArray[np.uint8]] = []
    things = []
    for style in styles:
        if style not in STYLES:
            raise ValueError(f"style {style!r} is unknown; known: {', '.join(STYLES)}")
        index_path = cache / str(side) / f"{style}.json"
        if not index_path.exists():
            raise FileNotFoundError(f"{index_path} is missing: run `python -m training.data --side {side}`")
        index = json.loads(index_path.read_text())
        if not is_built(index_path):
            _unpack(index_path, index)
        shape = (len(index["things"]), side, side, 3)
        parts.append(np.memmap(index_path.with_suffix(".u8"), np.uint8, "r", shape=shape))
        opacities.append(np.memmap(index_path.with_suffix(".alpha.u8"), np.uint8, "r", shape=shape[:3]))
        for entry in index["things"]:
            known = {key: entry[key] for key in ("name", "group", "subgroup", "hexcode")}
            things.append(Thing(style=style, tags=tuple(entry["tags"]), **known))
    held = np.array([is_held_out(thing.hexcode) for thing in things], dtype=bool)
    pixels, alpha = (group[0] if len(group) == 1 else np.concatenate(group) for group in (parts, opacities))
    return Pictures(pixels, alpha, things, np.flatnonzero(~held), np.flatnonzero(held))


def subset(pictures: Pictures, things: Sequence[Thing]) -> Pictures:
    """The pictures of these things alone, nothing held out."""
    wanted = {(thing.style, thing.hexcode) for thing in things}
    rows = np.array([i for i, t in enumerate(pictures.things) if (t.style, t.hexcode) in wanted], dtype=np.int64)
    every = np.arange(len(rows))
    return Pictures(pictures.pixels[rows], pictures.alpha[rows], [pictures.things[i] for i in rows], every, every[:0])


def is_built(index_path: Path) -> bool:
    """Whether a style's index, pixels and opacity are all on disk."""
    return all(
        path.exists() for path in (index_path, index_path.with_suffix(".u8"), index_path.with_suffix(".alpha.u8"))
    )


def build_style(style: str, side: int, cache: Path = CACHE) -> Path:
    """Render one style; returns the index's path. The index is written last: while it is missing, nothing is there."""
    index_path = cache / str(side) / f"{style}.json"
    if is_built(index_path):
        return index_path
    index_path.parent.mkdir(parents=True, exist_ok=True)
    pixel_bytes = side * side * 3
    entries: list[dict[str, Any]] = []
    with _RawFiles(index_path) as raw:
        for emoji, pixels in _render(style, side, cache):
            if not is_blank(on_white(pixels)):
                entries.append({**asdict(emoji), "offset": len(entries) * pixel_bytes})
                raw.append(pixels)
    index = {"style": style, "side": side, "things": entries, "held_out": [is_held_out(e["hexcode"]) for e in entries]}
    _write_json(index_path, index)
    return index_path


class _RawFiles:
    """The two raw files of a style, which appear under their names only when they are whole."""

    def __init__(self, index_path: Path) -> None:
        self._targets = [index_path.with_suffix(".u8"), index_path.with_suffix(".alpha.u8")]
        self._partials = [target.with_name(target.name + ".partial") for target in self._targets]

    def __enter__(self) -> Self:
        self._colour, self._opacity = (partial.open("wb") for partial in self._partials)
        return self

    def append(self, pixels: Pixels) -> None:
        """uint8 (side, side, 4), straight alpha."""
        self._colour.write(on_white(pixels).tobytes())
        self._opacity.write(pixels[..., 3].tobytes())

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._colour.close()
        self._opacity.close()
        if error is None:
            for partial, target in zip(self._partials, self._targets, strict=True):
                partial.rename(target)


def _render(style: str, side: int, cache: Path) -> Iterator[tuple[Emoji, Pixels]]:
    emoji = read_emoji(cache)
    if style == "3d":
        files = {strip_selector(p.stem): p for p in (fetch(style, cache) / "assets").glob("*.webp")}
        for code in tqdm([c for c in emoji if c in files], desc=f"{style} {side} px"):
            yield emoji[code], render_image(files[code].read_bytes(), side)
        return
    icons = read_icons(style, cache)
    for code in tqdm([c for c in emoji if c in icons], desc=f"{style} {side} px"):
        yield emoji[code], render_svg(icons[code], side)


def pack_style(index_path: Path, piece_bytes: int = PIECE_BYTES) -> None:
    """Write a built style as webp pieces of at most piece_bytes; the index gets each picture's place in them."""
    index = json.loads(index_path.read_text())
    if "pieces" in index:
        return
    side, pieces = index["side"], [io.BytesIO()]
    shape = (len(index["things"]), side, side)
    colour = np.memmap(index_path.with_suffix(".u8"), np.uint8, "r", shape=(*shape, 3))
    opacity = np.memmap(index_path.with_suffix(".alpha.u8"), np.uint8, "r", shape=shape)
    for i, entry in enumerate(tqdm(index["things"], desc=f"pack {index['style']}")):
        encoded = encode_webp(without_white(colour[i], opacity[i]))
        if pieces[-1].tell() + len(encoded) > piece_bytes:
            pieces.append(io.BytesIO())
        entry["packed"] = [len(pieces) - 1, pieces[-1].tell(), len(encoded)]
        pieces[-1].write(encoded)
    folder = index_path.parent / "packs"
    folder.mkdir(exist_ok=True)
    index["pieces"] = [f"packs/{index['style']}-{i:02d}.pack" for i in range(len(pieces))]
    for name, piece in zip(index["pieces"], pieces, strict=True):
        (index_path.parent / name).write_bytes(piece.getvalue())
    _write_json(index_path, index)


def _unpack(index_path: Path, index: dict[str, Any]) -> None:
    names, things = index.get("pieces"), index["things"]
    if names is None:
        raise FileNotFoundError(f"{index_path.with_suffix('.u8')} is missing, and {index_path} names no packs")
    pieces = [(index_path.parent / name).read_bytes() for name in names]
    with _RawFiles(index_path) as raw:
        for entry in tqdm(things, desc=f"unpack {index['style']}"):
            piece, start, length = entry["packed"]
            raw.append(render_image(pieces[piece][start : start + length], index["side"]))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(content))
    partial.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.data", description="Build the pictures to train on.")
    parser.add_argument("--side", type=int, default=128, choices=SIDES, help="side of a picture in pixels")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES), help="styles, built in this order")
    parser.add_argument("--pack", action="store_true", help="also write webp pieces of at most 25 MB")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where everything is kept")
    arguments = parser.parse_args()
    for style in arguments.styles:
        index_path = build_style(style, arguments.side, arguments.cache)
        if arguments.pack:
            pack_style(index_path)
        print(f"{index_path}: {len(json.loads(index_path.read_text())['things'])} pictures")


if __name__ == "__main__":
    sys.exit(run_command(main))
