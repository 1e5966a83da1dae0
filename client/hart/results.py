"""Results: images that can be saved, and the events of a stream."""

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
    """ "png", "jpeg" or "webp"; "unknown" for a format added after this client version."""
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
        """Write the file atomically, and return its path.

        Follows links and keeps the mode of a replaced file. Writes directly to a pipe or a device. Raises ValueError if
        the extension is that of another format, OSError if the file cannot be written.
        """
        target = Path(path)
        named = SUFFIXES.get(target.suffix.lower(), self.format)
        if self.format in FORMATS and named != self.format:
            raise ValueError(f"{target}: the extension is that of {named}, but the image is {self.format}")
        write_whole(target, self.data)
        return target


def write_whole(target: Path, data: bytes) -> None:
    """Write the file atomically. Raises OSError that names `target`.

    Follows links and keeps the mode of a replaced file. Writes directly to a pipe or a device.
    """
    try:
        _replace(target, data)
    except OSError as error:  # it may name the temporary file
        raise OSError(error.errno, error.strerror, str(target)) from None


def _replace(target: Path, data: bytes) -> None:
    old = target.stat() if target.exists() else None
    if old is not None and not stat.S_ISREG(old.st_mode):
        with target.open("wb") as file:
            file.write(data)
        return
    target = Path(os.path.realpath(target))  # after the check above: /dev/stdout is a link to a target without a path
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with part.open("xb") as file:
            if old is not None:
                part.chmod(stat.S_IMODE(old.st_mode))  # before any content is readable
            file.write(data)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class Image(_File):
    """A finished image."""

    index: int
    """0 to num_images - 1."""
    seed: int
    """This image's seed: a request for one image with it returns the same image."""

    @classmethod
    def of(cls, message: images_pb2.Image) -> Image:
        """From the protobuf message."""
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
    """A small image of the current state of generation."""


@dataclass(frozen=True)
class Accepted:
    """The first event: the request is valid and was admitted."""

    request_id: str
    seeds: tuple[int, ...]
    """One per image."""
    scales: int
    """Scales per image, which is the number of progress events per image."""
    trace_id: str
    model: str
    digest: str


@dataclass(frozen=True)
class Starting:
    """The request waits for the first replica of a stage to start."""

    stage: str
    estimated_seconds: float | None
    """Expected seconds until the replica is ready; None if no start was measured yet."""


@dataclass(frozen=True)
class Prepared:
    """The prompt is allowed and encoded; drawing begins."""

    prompt_tokens: int
    """Tokens of the prompt that are used."""
    warnings: tuple[str, ...]
    """Sentences for users: a truncated prompt, words that the model was not trained on."""
    revised_prompt: str | None
    """The prompt that is drawn, where the operator's replacement takes the place of an unsafe one."""


@dataclass(frozen=True)
class Progress:
    """A scale of an image is done."""

    image_index: int
    """The image, from 0."""
    scale: int
    """The scale, from 0."""
    side: int
    """The side of the scale's token map."""
    scales: int
    """Scales per image."""
    preview: Preview | None = None
    """None unless this scale has a preview (`preview_every`)."""


@dataclass(frozen=True)
class Finished:
    """The last event."""

    report: images_pb2.Report = field(repr=False)
    """Verdict, timings, warnings and model."""


Event: TypeAlias = Accepted | Starting | Prepared | Progress | Image | Finished


@dataclass(frozen=True)
class GenerateResult(Sequence[Image]):
    """The images of one request, in order of their index, and the report."""

    images: tuple[Image, ...]
    report: images_pb2.Report = field(repr=False)

    @classmethod
    def of(cls, message: images_pb2.GenerateResponse) -> GenerateResult:
        """From the protobuf message."""
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
    """The event of a protobuf message; None for a kind added after this client version."""
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
        case "prepared":
            ready = message.prepared
            revised = ready.revised_prompt if ready.HasField("revised_prompt") else None
            return Prepared(ready.prompt_tokens, tuple(warning.text for warning in ready.warnings), revised)
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
