"""Writes the images of many prompts as numbered files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hart.aio import AsyncClient
from hart.cli.connection import UsageError
from hart.cli.output_paths import ending, require_writable
from hart.request import Options
from hart.results import FORMATS, GenerateResult


@dataclass
class Folder:
    """Files numbered from 000000 in the order of the prompts. Line k of prompts.txt is the prompt of file k."""

    folder: Path
    ending: str
    count: int

    @classmethod
    def plan(cls, folder: Path, prompts: Sequence[str], options: Options, source: Path | None = None) -> Folder:
        """Make the folder and write prompts.txt. Raises UsageError if that would overwrite `source`, the input file."""
        format = (options.get("format") or "png").lower()
        if format not in FORMATS:
            raise UsageError(f"--format {format}: expected one of {', '.join(FORMATS)}")
        count = max(1, options.get("num_images") or 1)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"-o {folder}: is a file; --separate requires a folder")
        listed = folder / "prompts.txt"
        if source is not None and listed.exists() and source.exists() and listed.samefile(source):
            raise UsageError(f"-o {folder}: prompts.txt would overwrite --file; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        require_writable(folder)
        lines = [prompt for prompt in prompts for _ in range(count)]
        listed.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return cls(folder, ending(format), count)

    async def prepare(self, client: AsyncClient) -> None:
        """No check: any number of files fits."""

    def add(self, row: int, result: GenerateResult) -> list[str]:
        """Write the files immediately, so that an interrupt keeps them."""
        names = [f"{row * self.count + image.index:06d}{self.ending}" for image in result]
        return [str(image.save(self.folder / name)) for image, name in zip(result, names, strict=True)]

    def close(self) -> str:
        """No-op."""
        return ""
