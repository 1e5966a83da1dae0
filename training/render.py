"""Vector and webp art to square RGB pixels on white; knows nothing of where the art comes from."""

import io

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def render_svg(svg: str, side: int) -> Pixels:
    """SVG text -> uint8 (side, side, 3) on white."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, background="white")
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def render_image(encoded: bytes, side: int) -> Pixels:
    """An encoded picture with or without transparency -> uint8 (side, side, 3) on white."""
    picture = Image.open(io.BytesIO(encoded)).convert("RGBA")
    canvas = Image.new("RGBA", picture.size, "white")
    canvas.alpha_composite(picture)
    return np.asarray(canvas.convert("RGB").resize((side, side), Image.Resampling.LANCZOS))


def encode_webp(pixels: Pixels, quality: int = 90) -> bytes:
    """uint8 (H, W, 3) -> webp bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def is_blank(pixels: Pixels) -> bool:
    """Whether a picture shows nothing: under 0.1% of its pixels differ from white."""
    return float((pixels.min(axis=-1) < 250).mean()) < 0.001
