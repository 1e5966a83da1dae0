"""How fast the released architecture trains on one device, with random weights.

    python -m benchmarks.full_size [--device cuda] [--json FILE]

Prints seconds of one whole training step of the transformer and of the tokenizer: losses, gradients, optimisers,
averages. Random weights take the time of trained ones. Without the device it says so and ends with 2. On a CPU
(`--device cpu --rounds 1`) it is a proof, not a measure: it takes the better part of an hour and 20 GB. How fast the
architecture draws is measured by `benchmarks.generate`.
"""

import argparse
import gc
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness.cli import run_command
from benchmarks.load_checkpoint import TOKENIZER, TRANSFORMER
from benchmarks.timing import device_argument, device_name, peak_gigabytes, seconds
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.core.loop import Progress
from training.core.options import count
from training.data.text_cache import TextCache
from training.data.token_cache import TokenCache
from training.tokenizer.train import TokenizerTraining
from training.transformer.network import initialise
from training.transformer.train import TrainConfig, TrainingData, TransformerTraining

ROUNDS = 5
TOKENS = sum(n * n for n in TRANSFORMER.patch_nums)
NO_DEVICE = 2


def train_transformer(device: torch.device, rounds: int, recomputed: bool) -> dict[str, float]:
    """Median seconds of a step on one picture, and what the last one learned."""
    with device:
        net = initialise(Transformer(TRANSFORMER, TOKENIZER.vocab_size, TOKENIZER.z_channels))
        quantizer = HybridTokenizer(TOKENIZER).quantize
    codes = TokenCache(
        torch.randint(TOKENIZER.vocab_size, (1, TOKENS)).short(), torch.randn(1, 64 * 64, 32).half() * 0.2
    )
    slots = TRANSFORMER.context_token
    contexts = TextCache(
        [["one"]], torch.randn(1, slots, TRANSFORMER.context_dim).half(), torch.arange(slots)[None] < 20
    )
    config = TrainConfig(batch=1, rate=1e-3, dropped=0.0, corrupted=0.0, checkpointed=recomputed)
    training = TransformerTraining(net, quantizer, TrainingData(codes, contexts), config)
    return steps(device, training.step, rounds)


def train_tokenizer(device: torch.device, rounds: int, recomputed: bool) -> dict[str, float]:
    """Median seconds of a step on two pictures of 1024 pixels, and what the last one learned."""
    training = TokenizerTraining(TOKENIZER, 1e-3, device, checkpointed=recomputed)
    side = TOKENIZER.image_side
    pictures = torch.nn.functional.interpolate(torch.rand(2, 3, 16, 16) * 2 - 1, side, mode="bicubic").clamp(-1, 1)
    return steps(device, lambda now: training.step(pictures, now), rounds)


def steps(device: torch.device, step: Callable[[Progress], dict[str, Tensor]], rounds: int) -> dict[str, float]:
    learned: list[dict[str, Tensor]] = []
    times = [seconds(device, lambda n=n: learned.append(step(Progress(step=100 + n)))) for n in range(rounds)]  # type: ignore[misc]
    losses = {
        "loss at first": round(float(learned[0]["loss"]), 4),
        "loss at last": round(float(learned[-1]["loss"]), 4),
    }
    return {"seconds": round(statistics.median(times), 3), **losses}


def measure(device: torch.device, rounds: int) -> dict[str, Any]:
    """Everything, printed as it comes."""
    figures: dict[str, Any] = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    figures["device"] = device_name(device)

    def note(name: str, found: dict[str, float]) -> None:
        figures[name] = {**found, "gigabytes at most so far": round(peak_gigabytes(device), 2)}
        print(name, json.dumps(figures[name]), file=sys.stderr, flush=True)
        gc.collect()  # modules that recompute hold themselves
        if device.type == "cuda":
            torch.cuda.empty_cache()

    for recomputed in (True,) if device.type == "cpu" else (True, False):
        how = "recomputing" if recomputed else "keeping all"
        note(f"transformer step, {how}", train_transformer(device, rounds, recomputed))
        note(f"tokenizer step, {how}", train_tokenizer(device, rounds, recomputed))
    return figures


def main() -> int:
    """Follow the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size", description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=device_argument, default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--rounds", type=count, default=ROUNDS, help="the median of so many")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    if arguments.device.type == "cuda" and not torch.cuda.is_available():
        print("No CUDA device: the full-size timing wants one GPU with 80 GB and torch built for it.", file=sys.stderr)
        return NO_DEVICE
    text = json.dumps(measure(arguments.device, arguments.rounds), indent=1)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
