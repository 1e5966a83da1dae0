"""What batching changes in an image, and the time that it saves.

    python -m benchmarks.batching [--checkpoint DIR] [--images N] [--dtypes float32 bfloat16] [--sizes 2 4 8]

Draws the same images alone and in batches, and prints per precision and batch size: the share of tokens equal to those
drawn alone, over all scales and in the last; the same between two batches of that size with other peers and positions;
the max and the mean difference of pixels (of 255) from the image drawn alone; and the time of an image over its time
alone, without decoding. Codes are sampled (`more_smooth` off): smoothed codes carry a batch's rounding on without
changing a token.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness.cli import run_command
from model.checkpoint import bundled
from model.device import DTYPES
from model.generation import Conditioning, GenerationState
from model.noise import SeededNoise
from model.params import SamplingParams
from model.pipeline import Pipeline

SETTINGS = SamplingParams(more_smooth=False)


@dataclass(frozen=True)
class BatchResult:
    """Images by number, and the seconds that all of them took."""

    tokens: dict[int, list[Tensor]]
    """Of each scale, shape (n²,)."""
    latents: dict[int, Tensor]
    seconds: float


class BatchRunner:
    """Draws numbered images in batches: image i has prompt i and seed i, in whatever batch it is drawn."""

    def __init__(self, folder: Path, images: int, slots: int, dtype: torch.dtype) -> None:
        self.pipeline = Pipeline.load(folder, dtype=dtype, safety=False, slots=slots)
        known = self.pipeline.checkpoint.known_prompts() or ["a red heart"]
        prompts = [known[i * len(known) // images] for i in range(images)]
        self._conditionings: list[Conditioning] = [
            self.pipeline.text_encoder.encode([prompt]).conditioning[0] for prompt in prompts
        ]

    def draw(self, batches: Sequence[Sequence[int]]) -> BatchResult:
        """Draw each batch from its first scale to its last."""
        tokens: dict[int, list[Tensor]] = {}
        latents: dict[int, Tensor] = {}
        begun = time.perf_counter()
        for numbers in batches:
            for number, state, drawn in zip(numbers, *self._batch(numbers), strict=True):
                tokens[number], latents[number] = drawn, state.latent
        return BatchResult(tokens, latents, time.perf_counter() - begun)

    def _batch(self, numbers: Sequence[int]) -> tuple[list[GenerationState], list[list[Tensor]]]:
        generator = self.pipeline.generator
        states = [generator.begin(self._conditionings[i], SeededNoise(i), SETTINGS) for i in numbers]
        drawn: list[list[Tensor]] = [[] for _ in states]
        try:
            for _ in range(generator.scales):
                generator.advance(states)
                for of_state, state in zip(drawn, states, strict=True):
                    assert state.tokens is not None
                    of_state.append(state.tokens)
        finally:
            for state in states:
                generator.release(state)
        return states, drawn


def in_batches(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    """Consecutive batches of this size."""
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


def equal_tokens(one: BatchResult, other: BatchResult) -> tuple[float, float]:
    """The share of equal tokens over all scales, and in the last."""
    pairs = [(a, b) for number, scales in one.tokens.items() for a, b in zip(scales, other.tokens[number], strict=True)]
    same = sum(int((a == b).sum()) for a, b in pairs) / sum(len(a) for a, _ in pairs)
    last = [(scales[-1], other.tokens[number][-1]) for number, scales in one.tokens.items()]
    return same, sum(int((a == b).sum()) for a, b in last) / sum(len(a) for a, _ in last)


def pixel_differences(runner: BatchRunner, one: BatchResult, other: BatchResult) -> tuple[int, float]:
    """The max and the mean difference, of 255."""
    max_difference, total = 0, 0.0
    for number, latent in one.latents.items():
        a, b = (runner.pipeline.pixels_of(found).astype(int) for found in (latent, other.latents[number]))
        max_difference, total = max(max_difference, int(abs(a - b).max())), total + float(abs(a - b).mean())
    return max_difference, total / len(one.latents)


def report(folder: Path, dtype: str, images: int, sizes: Sequence[int]) -> None:
    """Print one line per batch size."""
    runner = BatchRunner(folder, images, max(sizes), DTYPES[dtype])
    numbers = list(range(images))
    runner.draw([numbers[: max(sizes)]])  # warm-up: the first batch is slow
    alone = runner.draw(in_batches(numbers, 1))
    for size in sizes:
        batched = runner.draw(in_batches(numbers, size))
        stride = images // size
        others = [numbers[i::stride][::-1] for i in range(stride)]  # other peers, other positions
        tokens, last = equal_tokens(alone, batched)
        max_difference, mean = pixel_differences(runner, alone, batched)
        print(
            f"{dtype:9} batch {size}: tokens as alone {tokens:.4f} (last scale {last:.4f}), "
            f"as with other peers {equal_tokens(batched, runner.draw(others))[0]:.4f}; "
            f"pixels max {max_difference}, mean {mean:.3f}; "
            f"time per image {batched.seconds / alone.seconds:.2f} of alone",
            flush=True,
        )


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, help="default: the bundled one")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32", "bfloat16"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[2, 4, 8])
    options = parser.parse_args()
    for size in options.sizes:
        if size < 2 or options.images % size:
            parser.error(f"--sizes {size}: expected 2 or more, and a divisor of --images {options.images}")
    for dtype in options.dtypes:
        report(options.checkpoint or bundled(), dtype, options.images, options.sizes)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
