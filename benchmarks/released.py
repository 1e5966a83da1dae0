"""The engines against a plain eager implementation in the order of docs/spec.md, in turns in one run.

    python -m benchmarks.released [--threads 1 2] [--rounds 30] [--guidance X] [--checkpoint FOLDER]

Milliseconds from a prompt's conditioning to pixels: medians with the min beside them, and the baseline's time over
theirs. All are in float32 on the CPU and draw the same noise. Exit code 1 if an engine draws other tokens than the
baseline, or pixels that differ by more than 1 of 255.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.cli import run_command
from benchmarks.plain.picture import Plain
from model import engines
from model.checkpoint import Checkpoint, bundled
from model.device import AUTO, Compute
from model.errors import SettingError
from model.generation import Conditioning
from model.noise import SeededNoise
from model.params import SamplingParams
from model.pipeline import Pipeline
from model.pixels import Pixels
from training.core.options import count

BASELINE = "baseline"
CHECKED = 3
"""Pictures that are compared before the timed ones; they warm up too."""
PIXEL_TOLERANCE = 1
Picture = tuple[list[Tensor], Pixels]
"""The tokens of every scale, and pixels (H, W, 3)."""


@dataclass
class Contender:
    """Something that draws pictures, and the seconds that it took."""

    draw: Callable[[Conditioning, int], Picture]
    seconds: list[float] = field(default_factory=list)


def baseline(folder: Path, params: SamplingParams) -> Contender:
    """The plain implementation over weights of its own."""
    pipeline = Pipeline.load(folder, safety=False, engine=engines.TORCH)
    pipeline.tokenizer.decoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    plain = Plain(pipeline.generator.transformer, pipeline.generator.quantizer, pipeline.tokenizer)

    def draw(conditioning: Conditioning, seed: int) -> Picture:
        tokens, pixels = plain.draw(conditioning, SeededNoise(seed), params)
        return tokens, pixels.numpy()

    return Contender(draw)


def contender(pipeline: Pipeline, params: SamplingParams) -> Contender:
    """A pipeline's generator and decoder."""
    generator = pipeline.generator

    def draw(conditioning: Conditioning, seed: int) -> Picture:
        state, tokens = generator.begin(conditioning, SeededNoise(seed), params), []
        while state.scale < generator.scales:
            generator.advance([state])
            assert state.tokens is not None
            tokens.append(state.tokens)
        generator.release(state)
        return tokens, pipeline.pixels_of(state.latent)

    return Contender(draw)


def agree(expected: Picture, found: Picture) -> bool:
    """Whether two pictures have the same tokens, and pixels within the tolerance."""
    same = all(torch.equal(one, other) for one, other in zip(expected[0], found[0], strict=True))
    return same and int(np.abs(expected[1].astype(int) - found[1].astype(int)).max()) <= PIXEL_TOLERANCE


def measure(folder: Path, params: SamplingParams, threads: int, rounds: int) -> bool:
    """Print the rows of one number of threads. Returns whether all drew the same."""
    compute = Compute.of("cpu", "float32", threads)
    compute.own_this_thread()
    runners = {BASELINE: baseline(folder, params)}
    for engine in sorted({engines.TORCH, engines.choose(AUTO, compute)}, reverse=True):
        pipeline = Pipeline.load(folder, safety=False, engine=engine)
        runners[engine] = contender(pipeline, params)
    prompts = pipeline.checkpoint.known_prompts() or ["a red heart"]
    given = pipeline.text_encoder.encode(prompts[: CHECKED + rounds]).conditioning
    same = True
    for seed in range(CHECKED + rounds):
        conditioning = given[seed % len(given.context)]
        drawn = {}
        for name, runner in runners.items():
            begun = time.perf_counter()
            drawn[name] = runner.draw(conditioning, seed)
            if seed >= CHECKED:
                runner.seconds.append(time.perf_counter() - begun)
        same &= all(agree(drawn[BASELINE], picture) for picture in drawn.values())
    plain = runners[BASELINE].seconds
    for name, runner in runners.items():
        median, least = statistics.median(runner.seconds), min(runner.seconds)
        ratios = f"{statistics.median(plain) / median:.2f} ({min(plain) / least:.2f})"
        print(f"{threads:>7} {name:>9} {1e3 * median:7.1f} ({1e3 * least:.1f}) {ratios:>13}", flush=True)
    return same


def main() -> int:
    """Run the command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.released", description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=count, nargs="+", default=[1, 2], help="CPU threads (default: 1 2)")
    parser.add_argument("--rounds", type=count, default=30, help="pictures of each (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint folder (default: the bundled one)")
    parser.add_argument("--guidance", type=float, help="0 to 20 (default: the checkpoint's)")
    chosen = parser.parse_args()
    folder = chosen.checkpoint or bundled()
    params = Checkpoint.open(folder).sampling_defaults
    if chosen.guidance is not None:
        params = replace(params, guidance=chosen.guidance)
    print(f"guidance {params.guidance:g}")
    print("threads    engine  ms, median (min)  times as fast")
    same = [measure(folder, params, threads, chosen.rounds) for threads in chosen.threads]
    print(f"tokens equal, pixels within {PIXEL_TOLERANCE} of 255: {'yes' if all(same) else 'NO'}")
    return int(not all(same))


if __name__ == "__main__":
    sys.exit(run_command(main, SettingError))
