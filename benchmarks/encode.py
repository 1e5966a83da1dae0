"""Image encoders side by side: milliseconds and bytes, as ratios to Pillow's default, in one run.

    python -m benchmarks.encode [--rounds 15] [--side 1024] [--checkpoint FOLDER]

Two images: a noise-like one (a gradient under noise, the worst case of a model's output) and a real one (a mosaic of
images that the checkpoint draws, at its own size). Each encoder gets RGB pixels in memory and returns a file in memory;
each PNG is read back to check that it is lossless. Libraries that are not installed are skipped and named:
`pip install --group encoders` installs all of them.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from isal import isal_zlib
from PIL import Image

from benchmarks.harness.cli import run_command
from common.limits import DEFAULT_QUALITY
from model.image_file import encode, png
from model.pixels import Pixels

Encoder = Callable[[Pixels], bytes]


@dataclass(frozen=True)
class Row:
    """One encoder on one image."""

    milliseconds: float
    size: int


def pillow(format: str, pixels: Pixels, **options: Any) -> bytes:
    """Encode with Pillow."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def opencv(ending: str, pixels: Pixels, *flags: int) -> bytes:
    """Encode with OpenCV, including the conversion to its BGR order."""
    import cv2

    found, file = cv2.imencode(ending, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), list(flags))
    assert found
    return bytes(file)


def filtered(deflate: Callable[[Pixels], bytes], pixels: Pixels) -> bytes:
    """Our PNG writer with another library's deflate."""
    return png(pixels, deflate)


def png_encoders() -> dict[str, Encoder]:
    """PNG encoders by name; the others are compared with the first."""
    found: dict[str, Encoder] = {
        "Pillow, default": partial(pillow, "PNG"),
        "Pillow, level 1": partial(pillow, "PNG", compress_level=1),
        "ours (encode)": lambda pixels: encode(pixels, "PNG"),
    }
    for level in (0, 1, 2):
        found[f"numpy up + isal {level}"] = partial(filtered, partial(isal_zlib.compress, level=level))
    with _optional("zlib-ng"):
        from zlib_ng import zlib_ng

        found["numpy up + zlib-ng 1"] = partial(filtered, lambda rows: zlib_ng.compress(rows, 1))
    with _optional("deflate"):
        import deflate

        found["numpy up + libdeflate 1"] = partial(filtered, lambda rows: bytes(deflate.zlib_compress(rows, 1)))
    with _optional("opencv-python-headless"):
        import cv2

        found["OpenCV, default"] = lambda pixels: opencv(".png", pixels)
        found["OpenCV, level 1, up"] = lambda pixels: opencv(
            ".png", pixels, cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP
        )
    with _optional("fpng"):
        import fpng

        found["fpng"] = lambda pixels: bytes(fpng.from_ndarray(pixels))
    return found


def lossy_encoders() -> dict[str, dict[str, Encoder]]:
    """JPEG and WEBP encoders by format, at the default quality."""
    quality = DEFAULT_QUALITY
    jpeg: dict[str, Encoder] = {"Pillow, default": partial(pillow, "JPEG", quality=quality)}
    webp: dict[str, Encoder] = {
        "Pillow, default": partial(pillow, "WEBP", quality=quality),
        "Pillow, method 0": partial(pillow, "WEBP", quality=quality, method=0),
    }
    jpeg["ours (encode)"] = lambda pixels: encode(pixels, "JPEG")
    webp["ours (encode, method 2)"] = lambda pixels: encode(pixels, "WEBP")
    with _optional("opencv-python-headless"):
        import cv2

        jpeg["OpenCV"] = lambda pixels: opencv(".jpg", pixels, cv2.IMWRITE_JPEG_QUALITY, quality)
        webp["OpenCV"] = lambda pixels: opencv(".webp", pixels, cv2.IMWRITE_WEBP_QUALITY, quality)
    with _optional("simplejpeg"):
        import simplejpeg

        jpeg["simplejpeg"] = lambda pixels: bytes(
            simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="420")
        )
    return {"JPEG": jpeg, "WEBP": webp}


class _optional:
    """A block that needs one library; prints a line and skips the block if it is not installed."""

    def __init__(self, distribution: str) -> None:
        self._distribution = distribution

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, ImportError):
            print(f"({self._distribution} is not installed)")
            return True
        return False


def noise_like(side: int) -> Pixels:
    """A gradient under Gaussian noise of 12 levels."""
    across = np.linspace(0, 200, side)[None, :, None]
    down = np.linspace(0, 50, side)[:, None, None]
    noise = np.random.default_rng(0).normal(0, 12, (side, side, 3))
    values: Pixels = (across + down + noise).clip(0, 255).astype(np.uint8)
    return values


def drawn(side: int, checkpoint: str) -> Pixels:
    """A mosaic of different images by the checkpoint, of the given side in pixels."""
    from model.checkpoint import bundled
    from model.pipeline import Pipeline

    pipeline = Pipeline.load(checkpoint or bundled(), safety=False)
    prompts = pipeline.checkpoint.known_prompts() or ["a red heart"]
    first = pipeline.draw(prompts[0], seed=0).pixels
    count = -(-side // len(first))
    pixels = [pipeline.draw(prompts[n % len(prompts)], seed=n).pixels for n in range(count * count)]
    rows = [np.concatenate(pixels[at : at + count], axis=1) for at in range(0, len(pixels), count)]
    return np.ascontiguousarray(np.concatenate(rows)[:side, :side])


def measure(encoders: Mapping[str, Encoder], pixels: Pixels, rounds: int) -> dict[str, Row]:
    """Median of `rounds` after one warm-up round. Encoders alternate, so that a slow moment affects all of them."""
    times: dict[str, list[float]] = {name: [] for name in encoders}
    sizes: dict[str, int] = {}
    for _ in range(rounds + 1):
        for name, encoder in encoders.items():
            begun = time.perf_counter()
            file = encoder(pixels)
            times[name].append(time.perf_counter() - begun)
            sizes[name] = len(file)
    return {name: Row(1e3 * statistics.median(taken[1:]), sizes[name]) for name, taken in times.items()}


def require_lossless(encoders: Mapping[str, Encoder], pixels: Pixels) -> None:
    """Raises AssertionError naming an encoder whose file does not restore every pixel."""
    for name, encoder in encoders.items():
        with Image.open(io.BytesIO(encoder(pixels))) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), pixels), f"{name} loses pixels"


def show(title: str, rows: Mapping[str, Row]) -> None:
    """Print one table; ratios are to the first row."""
    base = next(iter(rows.values()))
    print(f"\n{title}\n| encoder | ms | time | bytes | size |\n|---|---|---|---|---|")
    for name, row in rows.items():
        time_ratio, size_ratio = row.milliseconds / base.milliseconds, row.size / base.size
        print(f"| {name} | {row.milliseconds:.1f} | {time_ratio:.3f} | {row.size:,} | {size_ratio:.2f} |")


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encode", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--checkpoint", default="", help="draws the real image (default: the bundled one)")
    chosen = parser.parse_args()
    groups = {"PNG": png_encoders(), **lossy_encoders()}
    images = {"noise-like": noise_like(chosen.side), "real": drawn(chosen.side, chosen.checkpoint)}
    print(f"{chosen.side} x {chosen.side}, median of {chosen.rounds} rounds; load {os.getloadavg()[0]:.1f}")
    for format, encoders in groups.items():
        for kind, pixels in images.items():
            if format == "PNG":
                require_lossless(encoders, pixels)
            show(f"{format}, {kind}", measure(encoders, pixels, chosen.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
