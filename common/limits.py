"""What a request may ask for, and what it gets where it does not say.

The wire, the stages and the pipeline in one process hold a request to the same bounds. A checkpoint, a deadline and a
message's size have bounds of their own.
"""

from __future__ import annotations

from typing import Literal

MAX_PROMPT_CHARACTERS = 2000
"""Without the white space around the prompt."""
MAX_IMAGES = 8
"""Of one request."""
MAX_GUIDANCE = 20.0
MAX_TOP_P = 1.0
MAX_RESIDUAL_TEMPERATURE = 1.0
SAMPLING_MAXIMA = {
    "guidance": MAX_GUIDANCE,
    "top_p": MAX_TOP_P,
    "residual_temperature": MAX_RESIDUAL_TEMPERATURE,
}
"""Maximum of each numeric sampling parameter; the minimum is 0."""
SAMPLING_FIELDS: tuple[Literal["guidance", "more_smooth", "top_p", "residual_temperature"], ...] = (
    "guidance",
    "more_smooth",
    "top_p",
    "residual_temperature",
)
"""Every sampling parameter by its name on the wire."""
MIN_QUALITY, MAX_QUALITY = 1, 100
"""Of lossy image files."""
MAX_REQUEST_ID_CHARACTERS = 128
MAX_RECIPE_BYTES = 60_000
"""Of a recipe's JSON: an EXIF segment of a JPEG holds 65,533 bytes, with its headers."""

DEFAULT_IMAGES = 1
DEFAULT_GUIDANCE = 4.5
DEFAULT_MORE_SMOOTH = True
DEFAULT_TOP_P = 0.0
"""Off."""
DEFAULT_RESIDUAL_TEMPERATURE = 1.0
"""As released."""
DEFAULT_QUALITY = 92


def is_request_id(text: str) -> bool:
    """Whether it has 1 to MAX_REQUEST_ID_CHARACTERS characters, all of them visible ASCII."""
    return 1 <= len(text) <= MAX_REQUEST_ID_CHARACTERS and all("!" <= character <= "~" for character in text)


def is_quality(quality: float) -> bool:
    """Whether a lossy image file can have this quality."""
    return MIN_QUALITY <= quality <= MAX_QUALITY
