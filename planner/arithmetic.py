"""A profile computed from the released model's arithmetic, for a device on which nothing was measured yet.

Work per image with guidance, in TFLOP (`docs/performance.md`, "The released size, without a GPU"): a scale's linear
layers grow with its tokens, its attention with its tokens times all tokens up to it. A scale takes that over the
reached rate, and at least the time to launch its operations or to read the weights once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from planner.costs import BatchCost
from planner.profile import Profile, StageProfile

SIDES = (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64)
CONTEXT_TOKENS = 300
LINEAR, ATTENTION, HEAD, RESIDUAL, DECODER = 26.5, 17.7, 0.25, 4.6, 6.5
"""TFLOP per image."""
WEIGHT_BYTES = 1.46e9
OPERATIONS, LAST_OPERATIONS = 762, 1630
"""Device operations of a scale, and of the last one (`docs/performance.md`)."""
MAX_BATCHED_TOKENS = 2048
"""The generator's default on a GPU (`services/ar_generator/engine.py`)."""
TEXT_SECONDS_AT_PEAK = 1.55e-3 * 989
"""Safety, and the text encoder, on one prompt: half of 3.1 ms on 989 TFLOP/s (`docs/operations.md`, "Size")."""
CONDITIONING_BYTES, LATENT_BYTES, FILE_BYTES = 300 * 1536 * 2, 32 * 64 * 64 * 4, 1_700_000
"""Half precision, single precision, and a PNG file of a real image (`python -m benchmarks.encode`: 8.9 ms)."""
ENCODE_SECONDS = {"png": 0.0089, "jpeg": 0.0029, "webp": 0.0434}
"""Measured on a CPU core (`python -m benchmarks.encode`, real images)."""


@dataclass(frozen=True)
class Device:
    """A kind of device, in half precision."""

    name: str
    tflops: float
    """Peak, TFLOP/s."""
    bandwidth: float
    """Peak, TB/s."""
    share: float = 0.5
    """Of both peaks, that is reached."""
    launch_seconds: float = 2.5e-6
    """Per device operation."""
    slots: int = 16
    """Images in progress on one device: 1.67 GB each."""

    def seconds(self, tflop: float) -> float:
        """Seconds of so much work."""
        return tflop / (self.tflops * self.share)


def profile(device: Device, name: str, start_seconds: float = 60.0) -> Profile:
    """The profile of the released 1024-pixel model. `start_seconds`: of every stage."""
    tokens = [side * side for side in SIDES]
    rows = [CONTEXT_TOKENS, *(2 * count for count in tokens[1:])]
    widths = [min(device.slots, max(1, MAX_BATCHED_TOKENS // count)) for count in rows]
    scales = [_scale(device, scale, widths[scale]) for scale in range(len(SIDES))]
    text = TEXT_SECONDS_AT_PEAK / (device.tflops * device.share)
    prompt = BatchCost(((1.0, text), (8.0, 4 * text)))
    decode = device.seconds(DECODER)
    stages = {
        "safety": StageProfile(prompt, start_seconds=start_seconds, devices=0.25, call_seconds=(0.002,)),
        "text_encoder": StageProfile(
            prompt, start_seconds=start_seconds, devices=0.25, call_seconds=(0.003,),
            transfer_bytes=CONDITIONING_BYTES,
        ),
        "ar_generator": StageProfile(
            BatchCost(((1.0, sum(one.seconds(1) for one in scales)),)), start_seconds=start_seconds,
            max_batch=device.slots, slots=device.slots, call_seconds=(0.004,),
            transfer_bytes=CONDITIONING_BYTES + LATENT_BYTES,
            scales=tuple(scales), max_batch_per_scale=tuple(widths),
        ),
        "decoder": StageProfile(
            BatchCost(((1.0, decode), (4.0, 4 * decode))), start_seconds=start_seconds, max_batch=4, encode_threads=4,
            encode_seconds=ENCODE_SECONDS, preview_seconds=decode / 16, preview_encode_seconds=0.0003,
            call_seconds=(0.006,), transfer_bytes=LATENT_BYTES + FILE_BYTES,
        ),
    }  # fmt: skip
    source = f"computed, NOT MEASURED: python -m planner arithmetic --device {device.name} --share {device.share:g}"
    return Profile(name, source, device.name, stages, (0.004,), 0.006, SIDES)


def _scale(device: Device, scale: int, width: int) -> BatchCost:
    tokens = [side * side for side in SIDES]
    seen = list(accumulate(tokens))
    pairs = [a * b for a, b in zip(tokens, seen, strict=True)]
    last = scale == len(SIDES) - 1
    work = (LINEAR + HEAD) * tokens[scale] / sum(tokens) + ATTENTION * pairs[scale] / sum(pairs) + RESIDUAL * last
    launches = (LAST_OPERATIONS if last else OPERATIONS) * device.launch_seconds
    floor = max(launches, WEIGHT_BYTES / (device.bandwidth * 1e12 * device.share))
    return BatchCost(tuple((float(n), max(floor, device.seconds(work * n))) for n in range(1, width + 1)))


DEVICES = {
    "a100": Device("a100", 312, 2.0),
    "h100": Device("h100", 989, 3.35),
    "h200": Device("h200", 989, 4.8),
}
