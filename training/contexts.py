"""Captions of the things to learn as conditioning, several of each, made once. Knows no pictures' pixels."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model.generation import Conditioning
from model.text import TextEncoder
from training.captions import Telling, captions, plainest
from training.data import Thing
from training.options import OptionError

RELEASED_SLOTS = 300


@dataclass(frozen=True)
class Contexts:
    """n pictures with one or more captions each, M captions in all, one picture's after another's."""

    words: list[list[str]]
    context: Tensor
    """(M, T, D), float16."""
    mask: Tensor
    """(M, T), bool."""

    @cached_property
    def _counts(self) -> Tensor:
        return torch.tensor([len(group) for group in self.words])

    @cached_property
    def _starts(self) -> Tensor:
        return self._counts.cumsum(0) - self._counts

    def first(self, pictures: Tensor) -> Conditioning:
        """The conditioning of the pictures' (B,) first captions."""
        return self._at(self._starts[pictures])

    def any(self, pictures: Tensor) -> Conditioning:
        """The conditioning of one of each picture's captions; random numbers from torch's own generator."""
        chance = torch.rand(len(pictures), dtype=torch.float64)
        return self._at(self._starts[pictures] + (chance * self._counts[pictures]).long())

    def _at(self, rows: Tensor) -> Conditioning:
        mask = self.mask[rows]
        return Conditioning(self.context[rows].float(), mask, mask.long().cumsum(1) - 1)


def load_encoder(folder: Path, context_tokens: int, device: torch.device) -> TextEncoder:
    """The text encoder in `folder`. Raises OptionError for what cannot stand in its place, CheckpointError."""
    try:
        kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise OptionError(f"--text {folder}: no text model here: config.json cannot be read: {error}") from None
    if kind != "qwen2":
        raise OptionError(f"--text {folder}: is a {kind}; expected a qwen2")
    encoder = TextEncoder.load(folder, context_tokens, device)
    most = encoder.network.config.max_position_embeddings - len(encoder.system_ids)
    if context_tokens > most:
        raise OptionError(f"--context-tokens {context_tokens}: --text {folder} reads at most {most}")
    if encoder.tokenizer.pad_token_id is None:
        raise OptionError(f"--text {folder}: its tokenizer has no pad_token, which fills the slots that are left")
    return encoder


def phrase(things: Sequence[Thing], variants: int, seed: int) -> list[list[str]]:
    """`variants` captions of each thing, the plainest first; keywords fit no other of these things."""
    rng, telling = np.random.default_rng(seed), Telling(things)
    return [
        [plainest(thing), *(captions(thing, rng, telling=telling) for _ in range(variants - 1))] for thing in things
    ]


@torch.no_grad()
def encode_words(
    encoder: TextEncoder, words: list[list[str]], most: int = 256, progress: Callable[..., object] = tqdm
) -> Contexts:
    """Captions (n lists) to conditioning, `most` at once up to the released 300 slots; attention grows by squares."""
    batch = max(1, most * RELEASED_SLOTS**2 // max(encoder.context_tokens, RELEASED_SLOTS) ** 2)
    flat = [caption for group in words for caption in group]
    contexts, masks = [], []
    for start in progress(range(0, len(flat), batch), desc="captions", mininterval=10):  # type: ignore[attr-defined]
        found = encoder.encode(flat[start : start + batch]).conditioning
        contexts.append(found.context.half().cpu())
        masks.append(found.mask.cpu())
    return Contexts(words, torch.cat(contexts), torch.cat(masks))
