"""Many prompts: several requests in flight, their pictures into one grid or numbered files."""

from __future__ import annotations

import asyncio
import io
import json
import math
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo
from rich.console import Console
from rich.markup import escape

from hart.aio import AsyncClient
from hart.cli.bar import bar
from hart.cli.connection import UsageError, Where
from hart.cli.places import Places, ending, require_writable
from hart.cli.report import answer_json, clipped, print_hints
from hart.errors import HartError, Overloaded
from hart.pictures import FORMATS, Answer, Image, write_whole
from hart.request import Options

_ATTEMPTS = 5
_PILLOW = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
_LONGEST_SIDE = {"jpeg": 65500, "webp": 16383}  # pixels that the encoders take; PNG's bound is far beyond memory's
_JPEG_EXIF = 65533  # bytes: one marker's


class Target(Protocol):
    """Where pictures go."""

    async def prepare(self, client: AsyncClient) -> None:
        """Look, before anything is drawn, whether it will fit; UsageError where it will not."""
        ...

    def take(self, row: int, answer: Answer) -> list[str]:
        """Keep the pictures of prompt `row`; their paths."""
        ...

    def finish(self) -> str:
        """All that will come has come; what people should know of the file, or ""."""
        ...


@dataclass(frozen=True)
class Failure:
    """A prompt that was not drawn."""

    prompt: str
    error: HartError


@dataclass
class Outcome:
    """What became of every prompt."""

    answers: dict[int, tuple[str, Answer, list[str]]] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    note: str = ""
    """What people should know of the file."""

    @property
    def failed(self) -> list[Failure]:
        """In order of the file's lines."""
        return [self.failures[row] for row in sorted(self.failures)]

    def json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "answers": [answer_json(*self.answers[row]) for row in sorted(self.answers)],
            "errors": [
                {"prompt": failure.prompt, "code": failure.error.code.name, "message": failure.error.message}
                for failure in self.failed
            ],
        }

    def tell(self, screen: Console) -> None:
        """For people."""
        for row in sorted(self.answers):
            prompt, answer, _ = self.answers[row]
            print_hints(screen, answer.report, prompt)
        if self.note:
            screen.print(f"[yellow]note:[/] {escape(self.note)}", soft_wrap=True)
        for path in dict.fromkeys(path for row in sorted(self.answers) for path in self.answers[row][2]):
            screen.print(f"[green]{escape(path)}[/]", soft_wrap=True)
        for failure in self.failed:
            name = type(failure.error).__name__
            prompt = escape(clipped(failure.prompt, 80))
            screen.print(f"[red]{name}:[/] {prompt!r}: {escape(failure.error.message)}", soft_wrap=True)


async def draw_all(
    where: Where, prompts: Sequence[str], options: Options, seconds: float | None, concurrency: int, target: Target
) -> Outcome:
    """Draw all prompts; one that fails leaves the others alone."""
    outcome = Outcome()
    gate = asyncio.Semaphore(concurrency)

    async def one(row: int, prompt: str) -> None:
        async with gate:
            try:
                answer = await _patiently(client, prompt, options, seconds)
                outcome.answers[row] = (prompt, answer, target.take(row, answer))
            except HartError as error:
                outcome.failures[row] = Failure(prompt, error)
            progress.advance(task)

    with bar() as progress:
        task = progress.add_task("prompts", total=len(prompts))
        async with AsyncClient(**where.arguments()) as client:
            await target.prepare(client)
            async with asyncio.TaskGroup() as group:
                for row, prompt in enumerate(prompts):
                    group.create_task(one(row, prompt))
    if outcome.answers:
        outcome.note = target.finish()
    return outcome


async def _patiently(client: AsyncClient, prompt: str, options: Options, seconds: float | None) -> Answer:
    """Draw, waiting as long as a busy server asks for: nobody watches a batch, so it need not fail at once."""
    for attempt in range(_ATTEMPTS):
        try:
            return await client.generate(prompt, timeout=seconds, **options)
        except Overloaded as busy:
            if attempt == _ATTEMPTS - 1:
                raise
            await asyncio.sleep(busy.retry_after or 2.0**attempt)
    raise AssertionError("unreachable")


@dataclass
class Folder:
    """Files numbered from 000000 in the order of the prompts, and prompts.txt: its line k belongs to file k."""

    folder: Path
    ending: str
    count: int

    @classmethod
    def plan(cls, folder: Path, prompts: Sequence[str], options: Options, source: Path | None = None) -> Folder:
        """Make the folder and write prompts.txt; UsageError where that is `source`, the file they were read from."""
        format = (options.get("format") or "png").lower()
        if format not in FORMATS:
            raise UsageError(f"--format {format}: not one of {', '.join(FORMATS)}")
        count = max(1, options.get("images") or 1)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"-o {folder}: --separate wants a folder, and this is a file")
        listed = folder / "prompts.txt"
        if source is not None and listed.exists() and source.exists() and listed.samefile(source):
            raise UsageError(f"-o {folder}: prompts.txt would be written over --file; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        require_writable(folder)
        lines = [prompt for prompt in prompts for _ in range(count)]
        listed.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return cls(folder, ending(format), count)

    async def prepare(self, client: AsyncClient) -> None:
        """Any number of files fits."""

    def take(self, row: int, answer: Answer) -> list[str]:
        """Write the files at once, so that an interrupt keeps what is drawn."""
        names = [f"{row * self.count + image.index:06d}{self.ending}" for image in answer]
        return [str(image.save(self.folder / name)) for image, name in zip(answer, names, strict=True)]

    def finish(self) -> str:
        """Nothing is left to do."""
        return ""


@dataclass
class Grid:
    """One picture of all pictures, nearly square, row by row in the order of the prompts."""

    places: Places
    prompts: Sequence[str]
    options: Options
    count: int
    tiles: dict[int, tuple[Image, dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def plan(cls, output: Path | None, prompts: Sequence[str], options: Options) -> Grid:
        """Choose the grid's file; the tiles travel as lossless PNG."""
        places = Places.plan(output, options.get("format"))
        if places.stdout:
            raise UsageError("-o -: a grid needs a file")
        quality = options.get("quality")
        if quality is not None and places.format == "png":
            raise UsageError("--quality is for jpeg and webp")
        if quality is not None and not 1 <= quality <= 100:
            raise UsageError(f"--quality {quality}: not from 1 to 100")
        wanted = Options(**options)
        options["format"], options["quality"] = "png", None
        return cls(places, prompts, wanted, max(1, options.get("images") or 1))

    async def prepare(self, client: AsyncClient) -> None:
        """UsageError where the format holds no picture as large as the grid will be."""
        longest = _LONGEST_SIDE.get(self.places.format)
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

    def take(self, row: int, answer: Answer) -> list[str]:
        """Keep the tiles."""
        for image in answer:
            recipe = {"prompt": self.prompts[row], "seed": image.seed, "model": answer.report.model.name}
            self.tiles[row * self.count + image.index] = (image, recipe)
        return [str(self.places.base)] * len(answer)

    def finish(self) -> str:
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
        settings: dict[str, Any] = {} if self.places.format == "png" else {"quality": self.options.get("quality") or 92}
        if self.options.get("metadata") is False:
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
