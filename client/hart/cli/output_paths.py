"""Where a request's pictures go, decided before anything is drawn; knows no request."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hart.cli.connection import UsageError
from hart.results import FORMATS, SUFFIXES

_ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


def ending(format: str) -> str:
    """The usual suffix of a format's files."""
    return _ENDINGS[format]


@dataclass(frozen=True)
class OutputPaths:
    """File names for the pictures of one request."""

    base: Path
    format: str
    stdout: bool = False

    @classmethod
    def plan(cls, output: Path | None, format: str | None, default: str = "picture") -> OutputPaths:
        """Format and name from -o and --format; UsageError where they disagree or the place cannot be written."""
        if format is not None and format.lower() not in FORMATS:
            raise UsageError(f"--format {format}: not one of {', '.join(FORMATS)}")
        wanted = format.lower() if format else None
        if output is not None and str(output) == "-":
            return cls(output, wanted or "png", stdout=True)
        if output is None:
            output = Path(default + ending(wanted or "png"))
        elif output.is_dir():
            output = output / (default + ending(wanted or "png"))
        by_suffix = SUFFIXES.get(output.suffix.lower())
        if by_suffix is None and wanted is None:
            raise UsageError(f"-o {output}: the suffix names no format; use {', '.join(SUFFIXES)} or --format")
        if wanted and by_suffix and wanted != by_suffix:
            raise UsageError(f"-o {output} is named as {by_suffix}, but --format says {wanted}")
        if output.is_dir():
            raise UsageError(f"-o {output}: is a folder")
        _require_place(output)
        return cls(output, wanted or str(by_suffix))

    def path(self, index: int, count: int) -> Path:
        """The name of picture `index` of `count`: the base itself for one, else base-0, base-1, …"""
        return self.base if count == 1 else self.base.with_stem(f"{self.base.stem}-{index}")

    def preview(self, index: int, count: int) -> Path:
        """The name of a picture's preview, overwritten as it gets better."""
        return self.path(index, count).with_suffix(".preview.jpg")


def _require_place(output: Path) -> None:
    """UsageError unless a picture can be saved there: in its folder, or as it is where it is a pipe or a device."""
    if not output.exists() or output.is_file():
        require_writable(Path(os.path.realpath(output)).parent if output.is_symlink() else output.parent)
    elif not os.access(output, os.W_OK):
        raise UsageError(f"-o {output}: cannot be written")


def require_writable(folder: Path) -> None:
    """UsageError unless files can be made in `folder`: better told before a picture is drawn than after."""
    if not folder.is_dir():
        raise UsageError(f"-o: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"-o: the folder {folder} cannot be written")
