"""model.generation, model.tokenizer: generation on `meta`, whose tensors have no data, fails on any synchronisation.

Mixing tensors of two devices fails too. Only the depth differs from the released one: all blocks are equal.
"""

import dataclasses

import pytest
import torch

from benchmarks.load_checkpoint import TOKENIZER, TRANSFORMER
from benchmarks.operations import noise, picture
from model.generation import Conditioning, Generator
from model.noise import SeededNoise
from model.params import SamplingParams
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer

META = torch.device("meta")


@pytest.fixture(scope="module")
def tokenizer() -> HybridTokenizer:
    with META:
        tokenizer = HybridTokenizer(TOKENIZER).bfloat16().eval()
    tokenizer.quantize.float()
    return tokenizer


@torch.inference_mode()
def test_generation_never_synchronises_with_the_device(tokenizer: HybridTokenizer) -> None:
    config = dataclasses.replace(TRANSFORMER, depth=2)
    with META:
        net = Transformer(config, TOKENIZER.vocab_size, TOKENIZER.z_channels).bfloat16().eval()
        mask = torch.empty(config.context_token, dtype=torch.bool)
        given = Conditioning(torch.empty(config.context_token, config.context_dim), mask, mask.long().cumsum(0) - 1)
    for module in net.keep_float32():
        module.float()
    generator = Generator(net, tokenizer.quantize, slots=2)
    states = [
        generator.begin(given, SeededNoise(seed, META), chosen)
        for seed, chosen in ((1, SamplingParams(4.5, True, 0.9)), (2, SamplingParams(0.0, False, 0.0)))
    ]
    for _ in config.patch_nums:
        generator.advance(states)
    images = tokenizer.decode(torch.stack([state.latent for state in states]))
    assert images.shape == (2, 3, 1024, 1024)
    assert images.device == META


def test_operations_per_scale_are_bounded() -> None:
    """On a GPU each operation costs microseconds whatever its size: up to scale 27 their number is the time."""
    parts = {name: found.total() for name, found in picture().items()}
    last = f"scale {TRANSFORMER.patch_nums[-1]}"
    scales = {name: count for name, count in parts.items() if name.startswith("scale") and name != last}
    assert max(scales.values()) <= 33 * TRANSFORMER.depth, scales
    assert parts[last] <= 1700
    assert parts["decoder"] <= 170
    assert noise().total() <= 500
