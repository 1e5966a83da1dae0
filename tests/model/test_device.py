"""A picture stays on its device: drawn on `meta`, whose tensors have no data, anything that asks for a value fails.

So does what mixes tensors of two devices. Depth alone is not the released one: every block is the same.
"""

import dataclasses

import pytest
import torch

from benchmarks.load_checkpoint import TOKENIZER, TRANSFORMER
from benchmarks.operations import counted, noise, picture
from model.generation import Conditioning, Generator, SamplingParams
from model.noise import SeededNoise
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer

ANYWHERE = torch.device("meta")


@pytest.fixture(scope="module")
def tokenizer() -> HybridTokenizer:
    with ANYWHERE:
        tokenizer = HybridTokenizer(TOKENIZER).bfloat16().eval()
    tokenizer.quantize.float()
    return tokenizer


@torch.inference_mode()
def test_a_picture_never_waits_for_a_value_from_its_device(tokenizer: HybridTokenizer) -> None:
    config = dataclasses.replace(TRANSFORMER, depth=2)
    with ANYWHERE:
        net = Transformer(config, TOKENIZER.vocab_size, TOKENIZER.z_channels).bfloat16().eval()
        mask = torch.empty(config.context_token, dtype=torch.bool)
        given = Conditioning(torch.empty(config.context_token, config.context_dim), mask, mask.long().cumsum(0) - 1)
    for module in net.keep_float32():
        module.float()
    generator = Generator(net, tokenizer.quantize, slots=2)
    states = [
        generator.begin(given, SeededNoise(seed, ANYWHERE), chosen)
        for seed, chosen in ((1, SamplingParams(4.5, True, 0.9)), (2, SamplingParams(0.0, False, 0.0)))
    ]
    for _ in config.patch_nums:
        generator.advance(states)
    picture = tokenizer.decode(torch.stack([state.latent for state in states]))
    assert picture.shape == (2, 3, 1024, 1024)
    assert picture.device == ANYWHERE


def test_such_a_device_gives_no_value_and_bears_no_stranger() -> None:
    tensor = torch.empty(3, device=ANYWHERE)
    with pytest.raises(RuntimeError):
        tensor.sum().item()
    with pytest.raises(RuntimeError):
        tensor + torch.ones(3)


def test_a_scale_asks_its_device_for_few_operations() -> None:
    """On a GPU each costs microseconds whatever its size: up to scale 27 a picture is as slow as they are many."""
    parts = {name: found.total() for name, found in picture().items()}
    last = f"scale {TRANSFORMER.patch_nums[-1]}"
    scales = {name: count for name, count in parts.items() if name.startswith("scale") and name != last}
    assert max(scales.values()) <= 33 * TRANSFORMER.depth, scales
    assert parts[last] <= 1700
    assert parts["decoder"] <= 170
    assert noise().total() <= 500


def test_operations_are_counted_and_views_are_not() -> None:
    tensor = torch.empty(4, 6, device=ANYWHERE)
    with torch.inference_mode():
        found = counted(
            lambda: (tensor.view(24), tensor.t().reshape(24), tensor.to(torch.float32), tensor.double() + 1)
        )
    assert found == {"reshape": 1, "to": 1, "add": 1}
