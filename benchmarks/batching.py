"""What company in a batch changes in a picture, and what it saves.

    python -m benchmarks.batching [--checkpoint DIR] [--pictures N] [--dtypes float32 bfloat16] [--sizes 2 4 8]

Draws the same pictures alone and in batches, and prints per precision and batch size: the share of tokens equal to
those drawn alone, over all scales and in the last; the same between two batches of that size with other neighbours and
other places in them; the largest and the mean difference of pixels (of 255) from the picture drawn alone; and the time
of a picture over its time alone, decoding left out. Pictures are drawn with drawn codes (`more_smooth` off): soft ones
carry a batch's rounding on without changing a token.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.ending import run_command
from model.checkpoint import bundled
from model.device import DTYPES
from model.generation import Conditioning, GenerationState, SamplingParams
from model.noise import SeededNoise
from model.pipeline import Pipeline

SETTINGS = SamplingParams(more_smooth=False)


@dataclass(frozen=True)
class Drawn:
    """Pictures by number, and the seconds that they took together."""

    tokens: dict[int, list[Tensor]]
    """Of each scale, (n²,)."""
    latents: dict[int, Tensor]
    seconds: float


class Easel:
    """Draws numbered pictures in batches: picture i is of prompt i by seed i, wherever it is drawn."""

    def __init__(self, folder: Path, pictures: int, slots: int, dtype: torch.dtype) -> None:
        self.pipeline = Pipeline.load(folder, dtype=dtype, safety=False, slots=slots)
        known = self.pipeline.checkpoint.known_prompts() or ["a picture"]
        prompts = [known[i * len(known) // pictures] for i in range(pictures)]
        self._conditionings: list[Conditioning] = [
            self.pipeline.text_encoder.encode([prompt]).conditioning[0] for prompt in prompts
        ]

    def draw(self, batches: Sequence[Sequence[int]]) -> Drawn:
        """Each batch from its first scale to its last."""
        tokens: dict[int, list[Tensor]] = {}
        latents: dict[int, Tensor] = {}
        begun = time.perf_counter()
        for numbers in batches:
            for number, state, drawn in zip(numbers, *self._batch(numbers), strict=True):
                tokens[number], latents[number] = drawn, state.latent
        return Drawn(tokens, latents, time.perf_counter() - begun)

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
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


def equal_tokens(one: Drawn, other: Drawn) -> tuple[float, float]:
    """The share over all scales, and in the last."""
    pairs = [(a, b) for number, scales in one.tokens.items() for a, b in zip(scales, other.tokens[number], strict=True)]
    same = sum(int((a == b).sum()) for a, b in pairs) / sum(len(a) for a, _ in pairs)
    last = [(scales[-1], other.tokens[number][-1]) for number, scales in one.tokens.items()]
    return same, sum(int((a == b).sum()) for a, b in last) / sum(len(a) for a, _ in last)


def pixel_differences(easel: Easel, one: Drawn, other: Drawn) -> tuple[int, float]:
    """The largest and the mean, of 255."""
    largest, total = 0, 0.0
    for number, latent in one.latents.items():
        a, b = (easel.pipeline.pixels_of(found).astype(int) for found in (latent, other.latents[number]))
        largest, total = max(largest, int(abs(a - b).max())), total + float(abs(a - b).mean())
    return largest, total / len(one.latents)


def report(folder: Path, dtype: str, pictures: int, sizes: Sequence[int]) -> None:
    easel = Easel(folder, pictures, max(sizes), DTYPES[dtype])
    numbers = list(range(pictures))
    easel.draw([numbers[: max(sizes)]])  # the first time is slow
    alone = easel.draw(in_batches(numbers, 1))
    for size in sizes:
        batched = easel.draw(in_batches(numbers, size))
        stride = pictures // size
        others = [numbers[i::stride][::-1] for i in range(stride)]  # other neighbours, other places
        tokens, last = equal_tokens(alone, batched)
        largest, mean = pixel_differences(easel, alone, batched)
        print(
            f"{dtype:9} batch {size}: tokens as alone {tokens:.4f} (last scale {last:.4f}), "
            f"as in other company {equal_tokens(batched, easel.draw(others))[0]:.4f}; "
            f"pixels {largest} at most, {mean:.3f} in the mean; "
            f"time of a picture {batched.seconds / alone.seconds:.2f} of alone",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, help="default: the bundled one")
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32", "bfloat16"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[2, 4, 8])
    options = parser.parse_args()
    for size in options.sizes:
        if size < 2 or options.pictures % size:
            parser.error(f"--sizes {size}: expected 2 or more, and a divisor of --pictures {options.pictures}")
    for dtype in options.dtypes:
        report(options.checkpoint or bundled(), dtype, options.pictures, options.sizes)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
