"""The image file formats, each fact about them once.

A format that is added here must also get a value in `ImageFormat` of protos/hart/v1/decoder.proto and an encoder in
`model.image_file`; tests compare.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageFormat:
    """One format of image files."""

    name: str
    """As Pillow and the Open Inference Protocol's parameter write it; `IMAGE_FORMAT_<NAME>` on the wire."""
    mime: str
    """Media type (RFC 6838)."""
    suffixes: tuple[str, ...]
    """Of file names, in lower case with the dot; the first is the one that files get."""
    has_quality: bool
    """Whether the encoder is lossy and takes a quality."""
    signature: tuple[tuple[int, bytes], ...]
    """Offsets from the start of a file, and the bytes there."""

    @property
    def suffix(self) -> str:
        """The one that files get."""
        return self.suffixes[0]

    def matches(self, data: bytes) -> bool:
        """Whether a file begins as one of this format."""
        return all(data[at : at + len(wanted)] == wanted for at, wanted in self.signature)


PNG = ImageFormat("PNG", "image/png", (".png",), False, ((0, b"\x89PNG\r\n\x1a\n"),))
JPEG = ImageFormat("JPEG", "image/jpeg", (".jpg", ".jpeg"), True, ((0, b"\xff\xd8"),))
WEBP = ImageFormat("WEBP", "image/webp", (".webp",), True, ((0, b"RIFF"), (8, b"WEBP")))

FORMATS = {format.name: format for format in (PNG, JPEG, WEBP)}
"""By name."""
NAMES = tuple(FORMATS)
SUFFIXES = {suffix: format for format in FORMATS.values() for suffix in format.suffixes}
"""The format that a file's name says."""
DEFAULT_FORMAT = PNG


def format_of(data: bytes) -> ImageFormat | None:
    """The format of a file, by its first bytes; None for another than these."""
    return next((format for format in FORMATS.values() if format.matches(data)), None)
