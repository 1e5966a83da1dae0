"""The images of the recipe: rendered once from npm packages into raw files, loaded as memory maps.

Build:  `python -m training.recipes.emoji.images [--side 128] [--styles flat noto ...]`: one file per style, flat first;
a style on disk is not built again. Files: `.cache/data/SIDE/STYLE.u8` (raw uint8, n x side x side x 3),
`STYLE.alpha.u8` (n x side x side) and `STYLE.json` (the index, written last). `--pack` also writes
`.cache/data/SIDE/packs/STYLE-NN.pack` (webp, at most 25 MB each) for another machine: `load_images` unpacks them
there when the `.u8` files are missing.

Load:   `load_images(side=128, styles=("flat",))`, an `EmojiImages`. A concept is held out in all styles or in none
(about 5%); held-out concepts measure the tokenizer. A transformer that is to know all concepts trains on all indices.
"""

import argparse
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.core.cli import run_command
from training.data.image_set import ImageSet, is_held_out
from training.data.packages import CACHE
from training.recipes.emoji.concepts import Concept
from training.recipes.emoji.icons import STYLES, Emoji, read_emoji, read_icons, strip_selector
from training.recipes.emoji.packages import fetch
from training.recipes.emoji.render import (
    Pixels,
    encode_webp,
    is_blank,
    on_white,
    render_image,
    render_svg,
    without_white,
)

PIECE_BYTES = 25_000_000
SIDES = (128, 256, 512, 1024)
"""Sides in pixels that a tokenizer can be trained on."""


@dataclass(frozen=True)
class EmojiImages(ImageSet):
    """An image set with what each image shows."""

    concepts: list[Concept]
    """n, in the images' order."""


def load_images(side: int = 128, styles: Sequence[str] = STYLES, cache: Path = CACHE) -> EmojiImages:
    """All images of the styles. Raises FileNotFoundError if they were not built and no packs are there."""
    parts: list[NDArray[np.uint8]] = []
    opacities: list[NDArray[np.uint8]] = []
    concepts = []
    for style in styles:
        if style not in STYLES:
            raise ValueError(f"style {style!r} is unknown; known: {', '.join(STYLES)}")
        index_path = cache / str(side) / f"{style}.json"
        if not index_path.exists():
            raise FileNotFoundError(
                f"{index_path} is missing: run `python -m training.recipes.emoji.images --side {side}`"
            )
        index = json.loads(index_path.read_text())
        if not is_built(index_path):
            _unpack(index_path, index)
        shape = (len(index["concepts"]), side, side, 3)
        parts.append(np.memmap(index_path.with_suffix(".u8"), np.uint8, "r", shape=shape))
        opacities.append(np.memmap(index_path.with_suffix(".alpha.u8"), np.uint8, "r", shape=shape[:3]))
        for entry in index["concepts"]:
            known = {key: entry[key] for key in ("name", "group", "subgroup", "hexcode")}
            concepts.append(Concept(style=style, tags=tuple(entry["tags"]), **known))
    held = np.array([is_held_out(concept.hexcode) for concept in concepts], dtype=bool)
    pixels, alpha = (group[0] if len(group) == 1 else np.concatenate(group) for group in (parts, opacities))
    return EmojiImages(pixels, alpha, np.flatnonzero(~held), np.flatnonzero(held), concepts)


def subset(images: EmojiImages, concepts: Sequence[Concept]) -> EmojiImages:
    """The images of these concepts, none held out."""
    wanted = {(concept.style, concept.hexcode) for concept in concepts}
    rows = np.array([i for i, t in enumerate(images.concepts) if (t.style, t.hexcode) in wanted], dtype=np.int64)
    every = np.arange(len(rows))
    kept = [images.concepts[i] for i in rows]
    return EmojiImages(images.pixels[rows], images.alpha[rows], every, every[:0], kept)


def is_built(index_path: Path) -> bool:
    """Whether a style's index, pixels and opacity are all on disk."""
    return all(
        path.exists() for path in (index_path, index_path.with_suffix(".u8"), index_path.with_suffix(".alpha.u8"))
    )


def build_style(style: str, side: int, cache: Path = CACHE) -> Path:
    """Renders one style and returns the index's path. It is written last: without it the style is missing."""
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
    index = {
        "style": style,
        "side": side,
        "concepts": entries,
        "held_out": [is_held_out(e["hexcode"]) for e in entries],
    }
    _write_json(index_path, index)
    return index_path


class _RawFiles:
    """The two raw files of a style, renamed to their final names when they are complete."""

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
    """Writes a built style as webp pieces of at most piece_bytes, and each image's place in them into the index."""
    index = json.loads(index_path.read_text())
    if "pieces" in index:
        return
    side, pieces = index["side"], [io.BytesIO()]
    shape = (len(index["concepts"]), side, side)
    colour = np.memmap(index_path.with_suffix(".u8"), np.uint8, "r", shape=(*shape, 3))
    opacity = np.memmap(index_path.with_suffix(".alpha.u8"), np.uint8, "r", shape=shape)
    for i, entry in enumerate(tqdm(index["concepts"], desc=f"pack {index['style']}")):
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
    names, concepts = index.get("pieces"), index["concepts"]
    if names is None:
        raise FileNotFoundError(f"{index_path.with_suffix('.u8')} is missing, and {index_path} lists no packs")
    pieces = [(index_path.parent / name).read_bytes() for name in names]
    with _RawFiles(index_path) as raw:
        for entry in tqdm(concepts, desc=f"unpack {index['style']}"):
            piece, start, length = entry["packed"]
            raw.append(render_image(pieces[piece][start : start + length], index["side"]))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(content))
    partial.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.recipes.emoji.images", description="Build the images to train on."
    )
    parser.add_argument("--side", type=int, default=128, choices=SIDES, help="side of an image in pixels")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES), help="styles, built in this order")
    parser.add_argument("--pack", action="store_true", help="also write webp pieces of at most 25 MB")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of packages and images")
    arguments = parser.parse_args()
    for style in arguments.styles:
        index_path = build_style(style, arguments.side, arguments.cache)
        if arguments.pack:
            pack_style(index_path)
        print(f"{index_path}: {len(json.loads(index_path.read_text())['concepts'])} images")


if __name__ == "__main__":
    sys.exit(run_command(main))
