"""How fast the released architecture draws and trains on one GPU, with random weights.

    python -m benchmarks.full_size [--json FILE]

Prints milliseconds of one picture at 1024 pixels in bfloat16 by part (context and each scale, the residual diffusion
in the last one, the decoder), pictures a second at batch 1 and 4, and seconds of one training step of the transformer
and of the tokenizer. Random weights take the time of trained ones. Without a CUDA device it says so and ends with 2.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.load_checkpoint import TOKENIZER, TRANSFORMER
from model.config import TokenizerConfig, TransformerConfig
from model.generation import Conditioning, Generator, Settings, State
from model.noise import SeededNoise
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.codebook import quantise
from training.teacher_forcing import TeacherForcing, maps_of
from training.tokenizer import Weights, picture_loss

BATCHES = (1, 4)
REPEATS = 5
NO_GPU = 2


def milliseconds(work: Callable[[], object]) -> float:
    """One run's time on the device."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def networks(transformer: TransformerConfig, tokenizer: TokenizerConfig) -> tuple[Transformer, HybridTokenizer]:
    """Random weights on the device in bfloat16, float32 where checkpoints are loaded so."""
    with torch.device("cuda"):
        net = Transformer(transformer, tokenizer.vocab_size, tokenizer.z_channels).bfloat16()
        pictures = HybridTokenizer(tokenizer).bfloat16()
    for module in (*net.keep_float32(), pictures.quantize):
        module.float()
    return net.eval(), pictures.eval()


def conditioning() -> Conditioning:
    slots = TRANSFORMER.context_token
    mask = torch.arange(slots, device="cuda") < 20
    context = torch.randn(slots, TRANSFORMER.context_dim, device="cuda")
    return Conditioning(context, mask, mask.long().cumsum(0) - 1)


@torch.inference_mode()
def draw(net: Transformer, tokenizer: HybridTokenizer, batch: int) -> dict[str, float]:
    """Median milliseconds of a batch by part."""
    generator = Generator(net, tokenizer.quantize, slots=batch)
    rounds = [draw_once(generator, tokenizer, batch) for _ in range(REPEATS + 1)]
    medians = {name: statistics.median(found[name] for found in rounds[1:]) for name in rounds[0]}
    total = sum(medians.values())
    return {**medians, "total": total, "pictures a second": 1000 * batch / total}


def draw_once(generator: Generator, tokenizer: HybridTokenizer, batch: int) -> dict[str, float]:
    """Milliseconds of each part of one batch of pictures."""
    states = [generator.begin(conditioning(), SeededNoise(i, "cuda"), Settings()) for i in range(batch)]
    parts = {f"scale {n}": milliseconds(lambda: generator.advance(states)) for n in TRANSFORMER.patch_nums}
    parts["decoder"] = milliseconds(lambda: decode(tokenizer, states))
    for state in states:
        generator.release(state)
    return parts


def decode(tokenizer: HybridTokenizer, states: list[State]) -> torch.Tensor:
    return torch.cat([tokenizer.decode(state.latent[None]) for state in states])


def train_transformer() -> float:
    """Median seconds of a forward and backward pass over one picture, float32 weights under bfloat16 autocast."""
    with torch.device("cuda"):
        net = Transformer(TRANSFORMER, TOKENIZER.vocab_size, TOKENIZER.z_channels)
        quantizer = HybridTokenizer(TOKENIZER).quantize
        indices = torch.randint(TOKENIZER.vocab_size, (1, sum(n * n for n in TRANSFORMER.patch_nums)))
    teacher, given = TeacherForcing(net).to("cuda"), conditioning()
    one = Conditioning(given.context[None], given.mask[None], given.positions[None])
    maps = maps_of(quantizer, indices)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(teacher(one, maps).logits.flatten(0, 1), indices.flatten())
        loss.backward()

    return statistics.median(milliseconds(step) for _ in range(3)) / 1000


def train_tokenizer() -> float:
    """Median seconds of a forward and backward pass over one picture of 1024 pixels."""
    with torch.device("cuda"):
        net = HybridTokenizer(TOKENIZER)
        pictures = torch.rand(1, 3, TOKENIZER.picture_side, TOKENIZER.picture_side) * 2 - 1

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            features = net.features(pictures).float()
        coded = quantise(net.quantize, features, 0.25)
        with torch.autocast("cuda", torch.bfloat16):
            drawn = net.decode_raw(features + (coded.latent - features).detach())
        (picture_loss(drawn.float(), pictures, Weights()) + coded.loss).backward()

    return statistics.median(milliseconds(step) for _ in range(3)) / 1000


def measure() -> dict[str, Any]:
    figures: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    net, tokenizer = networks(TRANSFORMER, TOKENIZER)
    for batch in BATCHES:
        figures[f"batch {batch}, ms"] = {name: round(value, 2) for name, value in draw(net, tokenizer, batch).items()}
    figures["gigabytes at most"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    del net, tokenizer
    figures["transformer step, s"] = round(train_transformer(), 3)
    torch.cuda.empty_cache()
    figures["tokenizer step, s"] = round(train_tokenizer(), 3)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("No CUDA device: the full-size timing wants one GPU with 80 GB and torch built for it.", file=sys.stderr)
        raise SystemExit(NO_GPU)
    text = json.dumps(measure(), indent=1)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
