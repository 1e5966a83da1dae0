"""Writes the images of many prompts as one image."""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from hart.aio import AsyncClient
from hart.cli.connection import UsageError
from hart.cli.output_paths import OutputPaths
from hart.errors import HartError
from hart.request import Options
from hart.results import GenerateResult, Image, write_whole

_PILLOW = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
_QUALITY = 92  # equal to the cluster's default
_MAX_SIDE = {"jpeg": 65500, "webp": 16383}  # max pixels of the encoders; the limit of PNG is beyond any memory
_JPEG_EXIF = 65533  # max bytes of one marker


@dataclass
class Grid:
    """A nearly square grid of all images, row by row in the order of the prompts."""

    output_paths: OutputPaths
    prompts: Sequence[str]
    options: Options
    count: int
    tiles: dict[int, tuple[Image, dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def plan(cls, output: Path | None, prompts: Sequence[str], options: Options) -> Grid:
        """Choose the grid's file, and request the tiles as lossless PNG. Raises UsageError."""
        output_paths = OutputPaths.plan(output, options.get("format"))
        if output_paths.stdout:
            raise UsageError("-o -: a grid requires a file")
        quality = options.get("quality")
        if quality is not None and output_paths.format == "png":
            raise UsageError("--quality applies to jpeg and webp only")
        if quality is not None and not 1 <= quality <= 100:
            raise UsageError(f"--quality {quality}: expected 1 to 100")
        original = Options(**options)
        options["format"], options["quality"] = "png", None
        return cls(output_paths, prompts, original, max(1, options.get("num_images") or 1))

    async def prepare(self, client: AsyncClient) -> None:
        """Raises UsageError if the grid would exceed the max size of the format."""
        max_side = _MAX_SIDE.get(self.output_paths.format)
        if max_side is None:
            return
        with suppress(HartError):  # without a description, generate anyway
            selected = self.options.get("model")
            for model in (await client.describe()).models:
                side = max(self._size(model.shape.width, model.shape.height))
                if side > max_side and selected in (None, model.model.name):
                    raise UsageError(
                        f"-o {self.output_paths.base}: the grid would be {side} pixels wide or high, and "
                        f"the max of {self.output_paths.format} is {max_side}: name a .png, or use --separate"
                    )

    def add(self, row: int, result: GenerateResult) -> list[str]:
        """Store the tiles."""
        for image in result:
            recipe = {"prompt": self.prompts[row], "seed": image.seed, "model": result.report.model.name}
            self.tiles[row * self.count + image.index] = (image, recipe)
        return [str(self.output_paths.base)] * len(result)

    def close(self) -> str:
        """Write the grid. The cell of a failed prompt is grey.

        If the file cannot be written, saves the tiles in a new folder and raises OSError that names it.
        """
        settings, note = self._settings()
        try:
            file = io.BytesIO()
            self._sheet().save(file, _PILLOW[self.output_paths.format], **settings)
            write_whole(self.output_paths.base, file.getvalue())
        except (OSError, ValueError, MemoryError) as error:
            raise self._save_tiles(error) from error
        return note

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """The size of the grid for tiles of this size."""
        return self._columns * width, math.ceil(self._cells / self._columns) * height

    @property
    def _cells(self) -> int:
        return len(self.prompts) * self.count

    @property
    def _columns(self) -> int:
        return math.ceil(math.sqrt(self._cells))

    def _sheet(self) -> PillowImage.Image:
        first, _ = next(iter(self.tiles.values()))
        sheet = PillowImage.new("RGB", self._size(first.width, first.height), (128, 128, 128))
        for cell, (image, _) in self.tiles.items():
            at = (cell % self._columns * first.width, cell // self._columns * first.height)
            sheet.paste(PillowImage.open(io.BytesIO(image.data)).convert("RGB"), at)
        return sheet

    def _save_tiles(self, error: Exception) -> OSError:
        """Save the tiles in a new folder. Returns the error that names it."""
        folder = Path(tempfile.mkdtemp(prefix="hart-"))  # not beside the grid, where the write failed
        for cell, (image, _) in self.tiles.items():
            image.save(folder / f"{cell:06d}.png")
        kept = f"the images are in {folder}"
        if isinstance(error, OSError) and error.errno is not None:
            return OSError(error.errno, f"{error.strerror}; {kept}", str(self.output_paths.base))
        return OSError(f"{self.output_paths.base}: {error or type(error).__name__}; {kept}")

    def _xmp(self) -> bytes:
        """The XMP of the first tile, which marks it as made by AI; b"" without one."""
        first, _ = next(iter(self.tiles.values()))
        found = PillowImage.open(io.BytesIO(first.data)).info.get("xmp", b"")
        return found if isinstance(found, bytes) else str(found).encode()

    def _settings(self) -> tuple[dict[str, Any], str]:
        """Pillow's arguments, and a note for the user or ""."""
        text, xmp = PngInfo(), self._xmp()
        settings: dict[str, Any] = {"pnginfo": text}
        if self.output_paths.format != "png":
            settings = {"quality": self.options.get("quality") or _QUALITY} | ({"xmp": xmp} if xmp else {})
        elif xmp:
            text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        if self.options.get("embed_metadata") is False:
            return settings, ""
        recipes = json.dumps([self.tiles[cell][1] for cell in sorted(self.tiles)], ensure_ascii=False)
        if self.output_paths.format == "png":
            text.add_itxt("hart", recipes)
            return settings, ""
        exif = PillowImage.Exif()
        # Exif IFD, UserComment. Its first eight bytes name the encoding.
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + recipes.encode("utf-16-be")
        data = exif.tobytes()
        if self.output_paths.format == "jpeg" and len(data) > _JPEG_EXIF:
            return settings, f"{self.output_paths.base} has no recipes: they are too long for jpeg; use png"
        return {**settings, "exif": data}, ""
