"""Draws pictures with networks in training, many at once, for sheets. Knows no checkpoints on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.generation import Generator, SamplingParams
from model.noise import SeededNoise
from model.text import TextEncoder
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.images import at_once, to_bytes
from training.sheet import save_sheet


@torch.inference_mode()
def draw(
    transformer: Transformer,
    tokenizer: HybridTokenizer,
    encoder: TextEncoder,
    prompts: Sequence[str],
    params: SamplingParams | None = None,
    most: int = 16,
) -> NDArray[np.uint8]:
    """One picture a prompt, uint8 (n, S, S, 3), `most` at once; prompt i takes seed i."""
    batch = at_once(most, tokenizer.config.image_side)
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


def draw_sheet(
    transformer: Transformer, tokenizer: HybridTokenizer, encoder: TextEncoder, prompts: Sequence[str], path: Path
) -> None:
    """One picture a prompt at default settings, with its words, eight in a row."""
    save_sheet(path, draw(transformer, tokenizer, encoder, prompts), columns=8, labels=prompts)
