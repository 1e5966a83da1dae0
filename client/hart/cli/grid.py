"""Many prompts' pictures as one."""

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
_QUALITY = 92  # the cluster's default
_MAX_SIDE = {"jpeg": 65500, "webp": 16383}  # pixels that the encoders take; PNG's bound is far beyond memory's
_JPEG_EXIF = 65533  # bytes: one marker's


@dataclass
class Grid:
    """One picture of all pictures, nearly square, row by row in the order of the prompts."""

    places: OutputPaths
    prompts: Sequence[str]
    options: Options
    count: int
    tiles: dict[int, tuple[Image, dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def plan(cls, output: Path | None, prompts: Sequence[str], options: Options) -> Grid:
        """Choose the grid's file; the tiles travel as lossless PNG."""
        places = OutputPaths.plan(output, options.get("format"))
        if places.stdout:
            raise UsageError("-o -: a grid needs a file")
        quality = options.get("quality")
        if quality is not None and places.format == "png":
            raise UsageError("--quality is for jpeg and webp")
        if quality is not None and not 1 <= quality <= 100:
            raise UsageError(f"--quality {quality}: not from 1 to 100")
        wanted = Options(**options)
        options["format"], options["quality"] = "png", None
        return cls(places, prompts, wanted, max(1, options.get("num_images") or 1))

    async def prepare(self, client: AsyncClient) -> None:
        """UsageError where the format holds no picture as large as the grid will be."""
        longest = _MAX_SIDE.get(self.places.format)
        if longest is None:
            return
        with suppress(HartError):  # a server that does not say is asked to draw all the same
            wanted = self.options.get("model")
            for model in (await client.describe()).models:
                side = max(self._size(model.shape.width, model.shape.height))
                if side > longest and wanted in (None, model.model.name):
                    raise UsageError(
                        f"-o {self.places.base}: the grid would be {side} pixels wide or high, and "
                        f"{self.places.format} holds {longest}: name a .png, or use --separate"
                    )

    def add(self, row: int, answer: GenerateResult) -> list[str]:
        """Keep the tiles."""
        for image in answer:
            recipe = {"prompt": self.prompts[row], "seed": image.seed, "model": answer.report.model.name}
            self.tiles[row * self.count + image.index] = (image, recipe)
        return [str(self.places.base)] * len(answer)

    def close(self) -> str:
        """Put the tiles together; a prompt that failed leaves its cell grey. Raises OSError where the file cannot be
        written, naming the folder in which the pictures are kept instead."""
        settings, note = self._settings()
        try:
            file = io.BytesIO()
            self._sheet().save(file, _PILLOW[self.places.format], **settings)
            write_whole(self.places.base, file.getvalue())
        except (OSError, ValueError, MemoryError) as error:
            raise self._rescued(error) from error
        return note

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """The grid's, of tiles of this size."""
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

    def _rescued(self, error: Exception) -> OSError:
        """Saves the tiles as they came into a new folder; the error that tells where."""
        folder = Path(tempfile.mkdtemp(prefix="hart-"))  # not beside the grid, where writing has just failed
        for cell, (image, _) in self.tiles.items():
            image.save(folder / f"{cell:06d}.png")
        kept = f"the pictures are in {folder}"
        if isinstance(error, OSError) and error.errno is not None:
            return OSError(error.errno, f"{error.strerror}; {kept}", str(self.places.base))
        return OSError(f"{self.places.base}: {error or type(error).__name__}; {kept}")

    def _settings(self) -> tuple[dict[str, Any], str]:
        """Pillow's arguments, and what people should know about them."""
        settings: dict[str, Any] = (
            {} if self.places.format == "png" else {"quality": self.options.get("quality") or _QUALITY}
        )
        if self.options.get("embed_metadata") is False:
            return settings, ""
        recipes = json.dumps([self.tiles[cell][1] for cell in sorted(self.tiles)], ensure_ascii=False)
        if self.places.format == "png":
            text = PngInfo()
            text.add_itxt("hart", recipes)
            return {"pnginfo": text}, ""
        exif = PillowImage.Exif()
        # Exif IFD, UserComment; its first eight bytes name the encoding.
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + recipes.encode("utf-16-be")
        data = exif.tobytes()
        if self.places.format == "jpeg" and len(data) > _JPEG_EXIF:
            return settings, f"{self.places.base} is without the recipes, which are too long for jpeg; a png holds them"
        return {**settings, "exif": data}, ""
