"""Many prompts: several requests in flight, their pictures into one grid or numbered files."""

from __future__ import annotations

import asyncio
import io
import json
import math
from collections.abc import Sequence
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
from hart.pictures import FORMATS, Answer
from hart.request import Options

_ATTEMPTS = 5
_PILLOW = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}


class Target(Protocol):
    """Where pictures go."""

    def take(self, row: int, answer: Answer) -> list[str]:
        """Keep the pictures of prompt `row`; their paths."""
        ...

    def finish(self) -> None:
        """All that will come has come."""
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
        async with AsyncClient(**where.arguments()) as client, asyncio.TaskGroup() as group:
            for row, prompt in enumerate(prompts):
                group.create_task(one(row, prompt))
    if outcome.answers:
        target.finish()
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

    def take(self, row: int, answer: Answer) -> list[str]:
        """Write the files at once, so that an interrupt keeps what is drawn."""
        names = [f"{row * self.count + image.index:06d}{self.ending}" for image in answer]
        return [str(image.save(self.folder / name)) for image, name in zip(answer, names, strict=True)]

    def finish(self) -> None:
        """Nothing is left to do."""


@dataclass
class Grid:
    """One picture of all pictures, nearly square, row by row in the order of the prompts."""

    places: Places
    prompts: Sequence[str]
    options: Options
    count: int
    tiles: dict[int, tuple[PillowImage.Image, dict[str, Any]]] = field(default_factory=dict)

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

    def take(self, row: int, answer: Answer) -> list[str]:
        """Keep the tiles."""
        for image in answer:
            picture = PillowImage.open(io.BytesIO(image.data)).convert("RGB")
            recipe = {"prompt": self.prompts[row], "seed": image.seed, "model": answer.report.model.name}
            self.tiles[row * self.count + image.index] = (picture, recipe)
        return [str(self.places.base)] * len(answer)

    def finish(self) -> None:
        """Put the tiles together; a prompt that failed leaves its cell grey."""
        cells = len(self.prompts) * self.count
        columns = math.ceil(math.sqrt(cells))
        width, height = next(iter(self.tiles.values()))[0].size
        sheet = PillowImage.new("RGB", (columns * width, math.ceil(cells / columns) * height), (128, 128, 128))
        for cell, (picture, _) in self.tiles.items():
            sheet.paste(picture, (cell % columns * width, cell // columns * height))
        sheet.save(self.places.base, _PILLOW[self.places.format], **self._settings())

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {} if self.places.format == "png" else {"quality": self.options.get("quality") or 92}
        if self.options.get("metadata") is False:
            return settings
        recipes = json.dumps([self.tiles[cell][1] for cell in sorted(self.tiles)], ensure_ascii=False)
        if self.places.format == "png":
            text = PngInfo()
            text.add_itxt("hart", recipes)
            return {"pnginfo": text}
        exif = PillowImage.Exif()
        # Exif IFD, UserComment; its first eight bytes name the encoding.
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + recipes.encode("utf-16-be")
        return {**settings, "exif": exif}
