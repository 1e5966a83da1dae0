"""What the gateway admits, starts and skips: pure functions, shared by the pipeline and the planner's simulation."""

from __future__ import annotations

from collections.abc import Iterable

MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 30.0
MAX_PREVIEW_SHARE, ALWAYS_ALLOWED_SIDE = 1 / 4, 128
"""A preview has at most this share of the image's side, or this side in pixels if that is larger."""
MIN_PREVIEW_SIDE = 64
"""In pixels, also after a scale that is smaller: a 2x2 latent decodes to noise."""


def has_room(admitted: int, num_images: int, capacity: int) -> bool:
    """True if a request for so many images may enter. `admitted`: images in the cluster; `capacity`: images that the
    generators can hold, 0 while unknown. A request larger than the capacity enters an empty cluster."""
    return not (admitted and 0 < capacity < admitted + num_images)


def may_start(in_progress: int, slots: int) -> bool:
    """True if one more image may be drawn beside the `in_progress` ones."""
    return in_progress < slots


def bottleneck(at_decoder: int, in_progress: int) -> str:
    """The stage that most of the images in progress wait for. `at_decoder`: those whose latent has arrived."""
    return "decoder" if 2 * at_decoder > in_progress else "ar_generator"


def retry_seconds(wait: float) -> float:
    """`retry_after` of a refused request. `wait`: estimated seconds of waiting at the bottleneck."""
    return min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, wait))


def decodes_preview(has_latent: bool, later_have_latents: Iterable[bool], *, last_scale: bool) -> bool:
    """True if the oldest unsent scale gets a preview: it has a latent, no newer latent waits, and it is not the last
    scale, whose preview would delay the image that follows."""
    return has_latent and not last_scale and not any(later_have_latents)


def preview_side(width: int, share: float = 1.0) -> int:
    """The preview's side in pixels for an image of this width: no larger than its scale, whose side has this share of
    the final one."""
    maximum = max(ALWAYS_ALLOWED_SIDE, int(width * MAX_PREVIEW_SHARE))
    return min(width, maximum, max(MIN_PREVIEW_SIDE, round(width * share)))
