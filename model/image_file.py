"""Pixels to image files with their recipe in them, and the recipe read back. Knows no tensors."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from PIL import Image

from model.errors import NotFiniteError, SettingError

Format = Literal["PNG", "JPEG", "WEBP"]
FORMATS: tuple[Format, ...] = get_args(Format)
DEFAULT_QUALITY = 92
SOFTWARE = "HART cluster"
RECIPE_KEY = "recipe"

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COMPRESSION = 1
"""Of isal's levels 0 to 3: as small as 2 and never slower (benchmarks/encode.py)."""
WEBP_METHOD = 2
"""Of 0 to 6, where Pillow's default is 4: twice as fast for files 5% smaller to 4% larger (benchmarks/encode.py)."""
EXIF_SOFTWARE, EXIF_DESCRIPTION = 0x0131, 0x010E

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Recipe:
    """What a picture can be made again with."""

    prompt: str
    """The prompt that was drawn: the replacement, where an unsafe one was replaced."""
    seed: int
    guidance: float
    more_smooth: bool
    top_p: float
    model: str
    digest: str
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """ASCII JSON with a fixed order of keys."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """From what `to_json` wrote."""
        return cls(**json.loads(text))


def to_pixels(picture: npt.NDArray[np.float32]) -> Pixels:
    """A picture (..., 3, H, W) in [0, 1] to (..., H, W, 3) 8-bit values: floor(255·x). Raises NotFiniteError."""
    if not np.isfinite(picture).all():
        raise NotFiniteError("the picture")
    return np.moveaxis((picture * 255).astype(np.uint8), -3, -1)


def check_encoding(format: str, quality: int) -> None:
    """Raises SettingError for a format or a quality that `encode` would refuse."""
    if format not in FORMATS:
        raise SettingError("format", f"{format!r}: expected one of {', '.join(FORMATS)}")
    if not 1 <= quality <= 100:
        raise SettingError("quality", f"{quality}: expected 1 to 100")


def encode(pixels: Pixels, format: str, quality: int = DEFAULT_QUALITY, recipe: str | None = None) -> bytes:
    """Pixels (H, W, 3) to an image file; `recipe` is JSON that goes into its metadata.

    PNG holds it as a text chunk named `recipe`, JPEG and WEBP as EXIF ImageDescription. `quality` 1 to 100 is for JPEG
    and WEBP. Raises SettingError for another format or quality.
    """
    check_encoding(format, quality)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise SettingError("pixels", f"{pixels.dtype} {pixels.shape}: expected uint8 (H, W, 3)")
    if format == "PNG":
        return png(pixels, {} if recipe is None else {"Software": SOFTWARE, RECIPE_KEY: recipe})
    options: dict[str, Any] = {"quality": quality} | ({"method": WEBP_METHOD} if format == "WEBP" else {})
    if recipe is not None:
        exif = Image.Exif()
        exif[EXIF_SOFTWARE], exif[EXIF_DESCRIPTION] = SOFTWARE, recipe
        options["exif"] = exif
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def read_recipe(file: bytes) -> Recipe | None:
    """The recipe in an image file made by `encode`, or None."""
    with Image.open(io.BytesIO(file)) as image:
        text = image.info.get(RECIPE_KEY) or image.getexif().get(EXIF_DESCRIPTION)
    return Recipe.from_json(text) if text else None


def _deflate(rows: Pixels) -> bytes:
    return isal_zlib.compress(rows, PNG_COMPRESSION)


def png(pixels: Pixels, texts: dict[str, str], deflate: Callable[[Pixels], bytes] = _deflate) -> bytes:
    """A PNG with the `up` filter and `texts` by keyword in Latin-1, deflated by isal (docs/performance.md compares)."""
    height, width, _ = pixels.shape
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = 2  # each row holds its difference to the one above
    flat = pixels.reshape(height, 3 * width)
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    chunks += [(b"tEXt", key.encode("latin-1") + b"\0" + text.encode("latin-1")) for key, text in texts.items()]
    chunks += [(b"IDAT", deflate(rows)), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
