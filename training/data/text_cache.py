"""Captions as conditioning: encoded once and kept on disk, several for each image."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from model.generation import Conditioning
from model.text import TextEncoder
from training.core.options import OptionError

RELEASED_SLOTS = 300


@dataclass(frozen=True)
class TextCache:
    """n images with one or more captions each, M captions in all, one image's after another's."""

    captions: list[list[str]]
    context: Tensor
    """(M, T, D), float16."""
    mask: Tensor
    """(M, T), bool."""

    @cached_property
    def _counts(self) -> Tensor:
        return torch.tensor([len(group) for group in self.captions])

    @cached_property
    def _starts(self) -> Tensor:
        return self._counts.cumsum(0) - self._counts

    def first(self, images: Tensor) -> Conditioning:
        """The conditioning of the images' (B,) first captions."""
        return self._at(self._starts[images])

    def any(self, images: Tensor) -> Conditioning:
        """The conditioning of a random caption of each image (B,); random numbers from torch's own generator."""
        chance = torch.rand(len(images), dtype=torch.float64)
        return self._at(self._starts[images] + (chance * self._counts[images]).long())

    def _at(self, rows: Tensor) -> Conditioning:
        mask = self.mask[rows]
        return Conditioning(self.context[rows].float(), mask, mask.long().cumsum(1) - 1)


def load_encoder(folder: Path, context_tokens: int, device: torch.device) -> TextEncoder:
    """The text encoder in `folder`. Raises OptionError if it is no usable Qwen2, CheckpointError if it is broken."""
    try:
        kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise OptionError(f"--text {folder}: no text model here: config.json cannot be read: {error}") from None
    if kind != "qwen2":
        raise OptionError(f"--text {folder}: is a {kind}; expected a qwen2")
    encoder = TextEncoder.load(folder, context_tokens, device)
    max_tokens = encoder.network.config.max_position_embeddings - len(encoder.system_ids)
    if context_tokens > max_tokens:
        raise OptionError(f"--context-tokens {context_tokens}: --text {folder} reads at most {max_tokens}")
    if encoder.tokenizer.pad_token_id is None:
        raise OptionError(f"--text {folder}: its tokenizer has no pad_token to fill unused slots with")
    return encoder


@torch.no_grad()
def encode_captions(
    encoder: TextEncoder, captions: list[list[str]], max_batch: int = 256, progress: Callable[..., object] = tqdm
) -> TextCache:
    """Captions (n lists) to conditioning, up to `max_batch` in one pass; fewer beyond the released 300 slots."""
    batch = max(1, max_batch * RELEASED_SLOTS**2 // max(encoder.context_tokens, RELEASED_SLOTS) ** 2)
    flat = [caption for group in captions for caption in group]
    contexts, masks = [], []
    for start in progress(range(0, len(flat), batch), desc="captions", mininterval=10):  # type: ignore[attr-defined]
        found = encoder.encode(flat[start : start + batch]).conditioning
        contexts.append(found.context.half().cpu())
        masks.append(found.mask.cpu())
    return TextCache(captions, torch.cat(contexts), torch.cat(masks))


def cached_captions(encoder: TextEncoder, captions: list[list[str]], path: Path, digest: str) -> TextCache:
    """The conditioning at `path` if it is of this encoder's digest and these captions; else encodes and writes it."""
    digest += hashlib.sha256(json.dumps([encoder.context_tokens, captions]).encode()).hexdigest()
    if path.exists():
        kept = torch.load(path, weights_only=True)
        if kept["digest"] == digest:
            return TextCache(captions, kept["context"], kept["mask"])
    encoded = encode_captions(encoder, captions)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    torch.save({"digest": digest, "context": encoded.context, "mask": encoded.mask}, partial)
    partial.replace(path)
    return encoded
