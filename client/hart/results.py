"""What a caller gets: pictures that can be saved, and the events of a stream; knows no channel."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, overload

from hart.v1 import decoder_pb2, images_pb2

FORMATS = {
    "png": decoder_pb2.IMAGE_FORMAT_PNG,
    "jpeg": decoder_pb2.IMAGE_FORMAT_JPEG,
    "webp": decoder_pb2.IMAGE_FORMAT_WEBP,
}
SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def format_name(value: int) -> str:
    """ "png", "jpeg" or "webp"; "unknown" for a format that this client is too old for."""
    return next((name for name, number in FORMATS.items() if number == value), "unknown")


@dataclass(frozen=True)
class _File:
    """An image file in memory."""

    data: bytes = field(repr=False)
    """The file's bytes."""
    format: str
    """ "png", "jpeg" or "webp"."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file whole or not at all, and return its path.

        A link is followed, a file that is replaced leaves its mode, and a pipe or a device is written to as it is.
        Raises ValueError for a name that says another format than the file has, OSError where it cannot be written.
        """
        target = Path(path)
        said = SUFFIXES.get(target.suffix.lower(), self.format)
        if self.format in FORMATS and said != self.format:
            raise ValueError(f"{target}: is named as {said}, but the file is {self.format}")
        write_whole(target, self.data)
        return target


def write_whole(target: Path, data: bytes) -> None:
    """Write the file whole or not at all, through links and with the mode of one that it replaces; into a pipe or a
    device as it is. Raises OSError naming it."""
    try:
        _replace(target, data)
    except OSError as error:  # which may name a file that the caller has never heard of
        raise OSError(error.errno, error.strerror, str(target)) from None


def _replace(target: Path, data: bytes) -> None:
    old = target.stat() if target.exists() else None
    if old is not None and not stat.S_ISREG(old.st_mode):
        with target.open("wb") as file:
            file.write(data)
        return
    target = Path(os.path.realpath(target))  # not before: /dev/stdout is a link to what has no name
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with part.open("xb") as file:
            if old is not None:
                part.chmod(stat.S_IMODE(old.st_mode))  # before there is anything to read
            file.write(data)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class Image(_File):
    """A finished picture."""

    index: int
    """From 0 to the number of pictures asked for, less one."""
    seed: int
    """This picture's own: asked for alone with it, the same picture comes."""

    @classmethod
    def of(cls, message: images_pb2.Image) -> Image:
        """From the wire."""
        return cls(
            data=message.data,
            format=format_name(message.format),
            width=message.width,
            height=message.height,
            index=message.index,
            seed=message.seed,
        )


@dataclass(frozen=True)
class Preview(_File):
    """A picture so far, small."""


@dataclass(frozen=True)
class Accepted:
    """The first event: the request is valid and work begins."""

    request_id: str
    seeds: tuple[int, ...]
    """One per picture."""
    scales: int
    """Scales per picture: the progress events to come for each."""
    trace_id: str
    model: str
    digest: str


@dataclass(frozen=True)
class Starting:
    """The request waits for a stage that starts its first replica."""

    stage: str
    estimated_seconds: float | None
    """Expected seconds until it is ready; None while no start was measured."""


@dataclass(frozen=True)
class Progress:
    """A scale of a picture is done."""

    image_index: int
    """The image, from 0."""
    scale: int
    """Which scale, from 0."""
    side: int
    """The side of its token map."""
    scales: int
    """How many the picture has."""
    preview: Preview | None = None
    """Where previews were asked for."""


@dataclass(frozen=True)
class Finished:
    """The last event."""

    report: images_pb2.Report = field(repr=False)
    """The verdict, the timings, the warnings, the model."""


Event: TypeAlias = Accepted | Starting | Progress | Image | Finished


@dataclass(frozen=True)
class GenerateResult(Sequence[Image]):
    """The pictures of one request, in order of their index, and the report about them."""

    images: tuple[Image, ...]
    report: images_pb2.Report = field(repr=False)

    @classmethod
    def of(cls, message: images_pb2.GenerateResponse) -> GenerateResult:
        """From the wire."""
        return cls(tuple(sorted(map(Image.of, message.images), key=lambda image: image.index)), message.report)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Image, ...]: ...
    def __getitem__(self, index: int | slice) -> Image | tuple[Image, ...]:
        return self.images[index]

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Image]:
        return iter(self.images)


def event_of(message: images_pb2.GenerateEvent) -> Event | None:
    """An event from the wire; None for a kind that this client is too old for."""
    match message.WhichOneof("event"):
        case "accepted":
            start = message.accepted
            return Accepted(
                start.request_id,
                tuple(start.seeds),
                start.scales,
                start.trace_id,
                start.model.name,
                start.model.digest,
            )
        case "starting":
            starting = message.starting
            estimate = starting.estimated_seconds if starting.HasField("estimated_seconds") else None
            return Starting(starting.stage, estimate)
        case "progress":
            return _progress_of(message.progress)
        case "image":
            return Image.of(message.image)
        case "finished":
            return Finished(message.finished.report)
    return None


def _progress_of(message: images_pb2.Progress) -> Progress:
    preview = None
    if message.HasField("preview"):
        small = message.preview
        preview = Preview(small.data, format_name(small.format), small.width, small.height)
    return Progress(message.image_index, message.scale, message.side, message.scales, preview)
