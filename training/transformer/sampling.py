"""Generates images in batches with networks in memory, for sample grids and measurements."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.generation import Generator
from model.noise import SeededNoise
from model.params import SamplingParams
from model.text import TextEncoder
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.core.images import batch_size, to_bytes
from training.core.sample_grid import save_sample_grid


@torch.inference_mode()
def draw(
    transformer: Transformer,
    tokenizer: HybridTokenizer,
    encoder: TextEncoder,
    prompts: Sequence[str],
    params: SamplingParams | None = None,
    max_batch: int = 16,
) -> NDArray[np.uint8]:
    """One image a prompt, uint8 (n, S, S, 3), up to `max_batch` in a pass; prompt i takes seed i."""
    batch = batch_size(max_batch, tokenizer.config.image_side)
    generator = Generator(transformer, tokenizer.quantize, slots=min(batch, len(prompts)))
    drawn = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        conditioning = encoder.encode(part).conditioning
        states = [
            generator.begin(conditioning[i], SeededNoise(start + i, generator.device), params or SamplingParams())
            for i in range(len(part))
        ]
        for _ in range(generator.scales):
            generator.advance(states)
        for state in states:
            generator.release(state)
        drawn.append(to_bytes(tokenizer.decode(torch.stack([state.latent for state in states]))))
    return np.concatenate(drawn)


def draw_sample_grid(
    transformer: Transformer, tokenizer: HybridTokenizer, encoder: TextEncoder, prompts: Sequence[str], path: Path
) -> None:
    """One image a prompt at default settings, with its prompt, eight in a row."""
    save_sample_grid(path, draw(transformer, tokenizer, encoder, prompts), columns=8, labels=prompts)
