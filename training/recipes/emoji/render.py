"""Vector and webp art to square RGB pixels on white."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def render_svg(svg: str, side: int) -> Pixels:
    """SVG text -> uint8 (side, side, 4), straight alpha."""
    import resvg_py  # here, because machines that only train on packed images need not have it

    png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def render_image(encoded: bytes, side: int) -> Pixels:
    """An encoded image with or without transparency -> uint8 (side, side, 4), straight alpha."""
    image = Image.open(io.BytesIO(encoded)).convert("RGBA")
    if image.size != (side, side):  # premultiplied while resizing: transparent colours must not bleed into the edges
        image = image.convert("RGBa").resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")
    return np.asarray(image)


def on_white(pixels: Pixels) -> Pixels:
    """uint8 (..., 4) with straight alpha -> uint8 (..., 3) on white."""
    alpha = pixels[..., 3:].astype(np.float32) / 255
    return np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def without_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    """The inverse of on_white: uint8 (H, W, 3) on white and its opacity (H, W) -> uint8 (H, W, 4)."""
    share = np.maximum(alpha[..., None].astype(np.float32) / 255, 1e-3)
    colour = np.where(alpha[..., None] > 0, 255 - (255 - pixels.astype(np.float32)) / share, 255)
    return np.dstack([np.clip(np.rint(colour), 0, 255).astype(np.uint8), alpha])


def encode_webp(pixels: Pixels, quality: int = 90) -> bytes:
    """uint8 (H, W, 3 or 4) -> webp bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def is_blank(pixels: Pixels) -> bool:
    """Whether an image shows nothing: under 0.1% of its pixels differ from white."""
    return float((pixels.min(axis=-1) < 250).mean()) < 0.001
