"""The number of device operations of an image of the released size, part by part.

    python -m benchmarks.operations [--batch 1]

Counts on the device `meta`, whose tensors have no data: it needs no GPU and takes seconds. On a GPU each operation is
one kernel or a few, and up to scale 27 launches cost more than the arithmetic. Views and allocations are not counted.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.generate import decode
from benchmarks.load_checkpoint import TOKENIZER, TRANSFORMER
from benchmarks.random_model import networks
from model.generation import Conditioning, GenerationState, Generator
from model.noise import Scales, SeededNoise, draw_diffusion, draw_scale
from model.params import SamplingParams
from training.core.options import count

NOWHERE = torch.device("meta")
ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty")


class Operations(TorchDispatchMode):
    """Counts operations by name while the context is active."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name not in ALLOCATIONS and not (function.is_view and shares_memory(result, args[0])):
            self.found[name] += 1
        return result


def shares_memory(result: Any, source: Any) -> bool:
    """Whether a possible view is one: a conversion or a reshape can also be a copy."""
    first = result if isinstance(result, torch.Tensor) else result[0]
    return bool(first.untyped_storage()._cdata == source.untyped_storage()._cdata)


def counted(work: Callable[[], object]) -> Counter[str]:
    with Operations() as operations:
        work()
    return operations.found


@torch.inference_mode()
def picture(batch: int = 1) -> dict[str, Counter[str]]:
    """The operations of a batch of images: begin, each scale, decoder."""
    net, tokenizer = networks(NOWHERE)
    generator = Generator(net, tokenizer.quantize, slots=batch)
    mask = torch.empty(TRANSFORMER.context_token, dtype=torch.bool, device=NOWHERE)
    context = torch.empty(TRANSFORMER.context_token, TRANSFORMER.context_dim, device=NOWHERE)
    given = Conditioning(context, mask, mask.long().cumsum(0) - 1)
    states: list[GenerationState] = []

    def begin() -> None:
        states.extend(generator.begin(given, SeededNoise(i, NOWHERE), SamplingParams()) for i in range(batch))

    parts = {"begin": counted(begin)}
    for side in TRANSFORMER.patch_nums:
        parts[f"scale {side}"] = counted(lambda: generator.advance(states))
    parts["decoder"] = counted(lambda: decode(tokenizer.decode, states))
    return parts


@torch.inference_mode()
def noise(batch: int = 1) -> Counter[str]:
    """The operations of `picture` that draw noise where no kernel does."""
    sources = [SeededNoise(i, NOWHERE) for i in range(batch)]
    sides = TRANSFORMER.patch_nums
    scales = Scales(sides, TOKENIZER.vocab_size)

    def draw() -> None:
        for k in range(len(sides)):
            draw_scale(sources, k, scales)
        shape = (sides[-1] ** 2, TOKENIZER.z_channels)
        draw_diffusion(sources, len(sides) - 1, TRANSFORMER.diffusion_steps - 1, shape)

    return counted(draw)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operations", description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=count, default=1, help="images per batch")
    batch = parser.parse_args().batch
    parts = picture(batch)
    for name, found in parts.items():
        top = ", ".join(f"{count} {kind}" for kind, count in found.most_common(6))
        print(f"{name:>9} {found.total():6,}  {top}")
    print(f"{'of it noise':>9} {noise(batch).total():4,}")
    print(f"{'total':>9} {sum(found.total() for found in parts.values()):6,}")


if __name__ == "__main__":
    main()
