"""Captions of the things to learn as conditioning, several of each, made once. Knows no pictures' pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model.generation import Conditioning
from model.text import TextEncoder
from training.captions import captions
from training.data import Thing


@dataclass(frozen=True)
class Contexts:
    """n things with K captions each."""

    words: list[list[str]]
    context: Tensor
    """(n, K, T, D), float16."""
    mask: Tensor
    """(n, K, T), bool."""

    def of(self, things: Tensor, variants: Tensor) -> Conditioning:
        """The conditioning of chosen captions, both (B,)."""
        mask = self.mask[things, variants]
        return Conditioning(self.context[things, variants].float(), mask, mask.long().cumsum(1) - 1)


def phrase(things: Sequence[Thing], variants: int, seed: int) -> list[list[str]]:
    """`variants` captions of each thing; the first one is always its plain name's."""
    rng = np.random.default_rng(seed)
    return [[captions(thing, rng) for _ in range(variants)] for thing in things]


@torch.no_grad()
def encode_words(
    encoder: TextEncoder, words: list[list[str]], batch: int = 256, progress: Callable[..., object] = tqdm
) -> Contexts:
    """Captions (n lists of K) to conditioning."""
    flat = [caption for group in words for caption in group]
    contexts, masks = [], []
    for start in progress(range(0, len(flat), batch), desc="captions", mininterval=10):  # type: ignore[attr-defined]
        found = encoder.encode(flat[start : start + batch]).conditioning
        contexts.append(found.context.half().cpu())
        masks.append(found.mask.cpu())
    shape = (len(words), len(words[0]))
    return Contexts(words, torch.cat(contexts).unflatten(0, shape), torch.cat(masks).unflatten(0, shape))
