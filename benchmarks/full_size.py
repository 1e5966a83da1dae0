"""How fast the released architecture draws and trains on one device, with random weights.

    python -m benchmarks.full_size [--device cuda] [--json FILE]

Prints milliseconds of one picture at 1024 pixels in bfloat16 by part (context and each scale, the residual diffusion
in the last one, the decoder), pictures a second by batch, and seconds of one whole training step of the transformer and
of the tokenizer: losses, gradients, optimisers, averages. Random weights take the time of trained ones. Without the
device it says so and ends with 2. On a CPU (`--device cpu --batches 1 --rounds 1`) it is a proof, not a measure: it
takes the better part of an hour and 20 GB.
"""

import argparse
import gc
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness.cli import run_command
from benchmarks.load_checkpoint import TOKENIZER, TRANSFORMER
from model.generation import Conditioning, GenerationState, Generator, SamplingParams
from model.noise import SeededNoise
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.codes import Codes
from training.contexts import Contexts
from training.loop import Moment
from training.network import initialise
from training.options import count
from training.tokenizer import TokenizerTraining
from training.transformer import Recipe, TransformerTraining

BATCHES = (1, 4)
ROUNDS = 5
TOKENS = sum(n * n for n in TRANSFORMER.patch_nums)
NO_DEVICE = 2


def seconds(device: torch.device, work: Callable[[], object]) -> float:
    """One run's time, with everything that it left to the device."""
    settle(device)
    start = time.perf_counter()
    work()
    settle(device)
    return time.perf_counter() - start


def settle(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def most_memory(device: torch.device) -> float:
    """Gigabytes held at most so far: of the device, or of the process where that is the CPU."""
    if device.type == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return torch.cuda.max_memory_allocated(device) / 1e9


def networks(device: torch.device) -> tuple[Transformer, HybridTokenizer]:
    """Random weights in bfloat16, float32 where checkpoints are loaded so."""
    with device:
        net = Transformer(TRANSFORMER, TOKENIZER.vocab_size, TOKENIZER.z_channels).bfloat16()
        pictures = HybridTokenizer(TOKENIZER).bfloat16()
    for module in (*net.keep_float32(), pictures.quantize):
        module.float()
    return net.eval().requires_grad_(False), pictures.eval().requires_grad_(False)


def draw(device: torch.device, batch: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of a batch by part, after one round that is not counted where there are several."""
    net, tokenizer = networks(device)
    generator = Generator(net, tokenizer.quantize, slots=batch)
    found = [draw_once(device, generator, tokenizer, batch) for _ in range(rounds + (rounds > 1))][-rounds:]
    medians = {name: round(1000 * statistics.median(one[name] for one in found), 2) for name in found[0]}
    total = sum(medians.values())
    return {**medians, "total": round(total, 2), "pictures a second": round(1000 * batch / total, 3)}


@torch.inference_mode()
def draw_once(device: torch.device, generator: Generator, tokenizer: HybridTokenizer, batch: int) -> dict[str, float]:
    """Seconds of each part of one batch of pictures."""
    slots = TRANSFORMER.context_token
    mask = torch.arange(slots, device=device) < 20
    context = torch.randn(slots, TRANSFORMER.context_dim, device=device)
    given = Conditioning(context, mask, mask.long().cumsum(0) - 1)
    states = [generator.begin(given, SeededNoise(i, device.type), SamplingParams()) for i in range(batch)]
    parts = {f"scale {n}": seconds(device, lambda: generator.advance(states)) for n in TRANSFORMER.patch_nums}
    parts["decoder"] = seconds(device, lambda: decode(tokenizer, states))
    for state in states:
        generator.release(state)
    return parts


def decode(tokenizer: HybridTokenizer, states: list[GenerationState]) -> torch.Tensor:
    return torch.cat([tokenizer.decode(state.latent[None]) for state in states])


def train_transformer(device: torch.device, rounds: int, recomputed: bool) -> dict[str, float]:
    """Median seconds of a step on one picture, and what the last one learned."""
    with device:
        net = initialise(Transformer(TRANSFORMER, TOKENIZER.vocab_size, TOKENIZER.z_channels))
        quantizer = HybridTokenizer(TOKENIZER).quantize
    codes = Codes(torch.randint(TOKENIZER.vocab_size, (1, TOKENS)).short(), torch.randn(1, 64 * 64, 32).half() * 0.2)
    slots = TRANSFORMER.context_token
    contexts = Contexts(
        [["one"]], torch.randn(1, slots, TRANSFORMER.context_dim).half(), torch.arange(slots)[None] < 20
    )
    recipe = Recipe(batch=1, rate=1e-3, dropped=0.0, corrupted=0.0)
    training = TransformerTraining(net, quantizer, codes, contexts, recipe, recomputed=recomputed)
    return steps(device, training.step, rounds)


def train_tokenizer(device: torch.device, rounds: int, recomputed: bool) -> dict[str, float]:
    """Median seconds of a step on two pictures of 1024 pixels, and what the last one learned."""
    training = TokenizerTraining(TOKENIZER, 1e-3, device, recomputed=recomputed)
    side = TOKENIZER.image_side
    pictures = torch.nn.functional.interpolate(torch.rand(2, 3, 16, 16) * 2 - 1, side, mode="bicubic").clamp(-1, 1)
    return steps(device, lambda now: training.step(pictures, now), rounds)


def steps(device: torch.device, step: Callable[[Moment], dict[str, Tensor]], rounds: int) -> dict[str, float]:
    learned: list[dict[str, Tensor]] = []
    times = [seconds(device, lambda n=n: learned.append(step(Moment(step=100 + n)))) for n in range(rounds)]  # type: ignore[misc]
    losses = {
        "loss at first": round(float(learned[0]["loss"]), 4),
        "loss at last": round(float(learned[-1]["loss"]), 4),
    }
    return {"seconds": round(statistics.median(times), 3), **losses}


def measure(device: torch.device, batches: list[int], rounds: int) -> dict[str, Any]:
    """Everything, printed as it comes."""
    figures: dict[str, Any] = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    figures["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    def note(name: str, found: dict[str, float]) -> None:
        figures[name] = {**found, "gigabytes at most so far": round(most_memory(device), 2)}
        print(name, json.dumps(figures[name]), file=sys.stderr, flush=True)
        gc.collect()  # modules that recompute hold themselves
        if device.type == "cuda":
            torch.cuda.empty_cache()

    for batch in batches:
        note(f"batch {batch}, ms", draw(device, batch, rounds))
    for recomputed in (True,) if device.type == "cpu" else (True, False):
        how = "recomputing" if recomputed else "keeping all"
        note(f"transformer step, {how}", train_transformer(device, rounds, recomputed))
        note(f"tokenizer step, {how}", train_tokenizer(device, rounds, recomputed))
    return figures


def device(text: str) -> torch.device:
    """One that this benchmark can time."""
    with suppress(RuntimeError):  # torch's, which lists every device that it has heard of
        if (found := torch.device(text)).type in ("cpu", "cuda"):
            return found
    raise argparse.ArgumentTypeError(f"{text}: not cpu, cuda or cuda:N")


def main() -> int:
    """Follow the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size", description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=device, default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--batches", type=count, nargs="+", default=list(BATCHES), help="pictures drawn at once")
    parser.add_argument("--rounds", type=count, default=ROUNDS, help="the median of so many")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    if arguments.device.type == "cuda" and not torch.cuda.is_available():
        print("No CUDA device: the full-size timing wants one GPU with 80 GB and torch built for it.", file=sys.stderr)
        return NO_DEVICE
    text = json.dumps(measure(arguments.device, arguments.batches, arguments.rounds), indent=1)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
