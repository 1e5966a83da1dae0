"""The output paths of a request, checked before it is sent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hart.cli.connection import UsageError
from hart.results import FORMATS, SUFFIXES

_ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


def ending(format: str) -> str:
    """The file extension of a format."""
    return _ENDINGS[format]


@dataclass(frozen=True)
class OutputPaths:
    """The file names of one request's images."""

    base: Path
    format: str
    stdout: bool = False

    @classmethod
    def plan(cls, output: Path | None, format: str | None, default: str = "picture") -> OutputPaths:
        """Format and name from -o and --format. Raises UsageError if they conflict or the path is not writable."""
        if format is not None and format.lower() not in FORMATS:
            raise UsageError(f"--format {format}: expected one of {', '.join(FORMATS)}")
        chosen = format.lower() if format else None
        if output is not None and str(output) == "-":
            return cls(output, chosen or "png", stdout=True)
        if output is None:
            output = Path(default + ending(chosen or "png"))
        elif output.is_dir():
            output = output / (default + ending(chosen or "png"))
        by_suffix = SUFFIXES.get(output.suffix.lower())
        if by_suffix is None and chosen is None:
            raise UsageError(f"-o {output}: unknown file extension; use {', '.join(SUFFIXES)} or --format")
        if chosen and by_suffix and chosen != by_suffix:
            raise UsageError(f"-o {output} has the extension of {by_suffix}, but --format is {chosen}")
        if output.is_dir():
            raise UsageError(f"-o {output}: is a folder, expected a file")
        _require_writable_file(output)
        return cls(output, chosen or str(by_suffix))

    def path(self, index: int, count: int) -> Path:
        """The path of image `index` of `count`: the base for one image, else base-0, base-1, …"""
        return self.base if count == 1 else self.base.with_stem(f"{self.base.stem}-{index}")

    def preview(self, index: int, count: int) -> Path:
        """The path of an image's preview. Each preview overwrites the one before."""
        return self.path(index, count).with_suffix(".preview.jpg")


def _require_writable_file(output: Path) -> None:
    """Raises UsageError unless the file, its folder, or the pipe or device is writable."""
    if not output.exists() or output.is_file():
        require_writable(Path(os.path.realpath(output)).parent if output.is_symlink() else output.parent)
    elif not os.access(output, os.W_OK):
        raise UsageError(f"-o {output}: not writable")


def require_writable(folder: Path) -> None:
    """Raises UsageError unless `folder` is writable. Called before a request, so that no image is lost."""
    if not folder.is_dir():
        raise UsageError(f"-o: no such folder: {folder}")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"-o: the folder {folder} is not writable")
