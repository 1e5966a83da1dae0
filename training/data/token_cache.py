"""Images as the transformer learns them: tokens of all scales and what remains, computed once and kept on disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from model.tokenizer import HybridTokenizer
from training.core.images import batch_size, to_signed


@dataclass(frozen=True)
class TokenCache:
    """n images as tokens, L = Σ n_k²."""

    indices: Tensor
    """(n, L) int16: codebook rows of all scales, one after another."""
    rest: Tensor
    """(n, N², Z) float16: what remained before the last scale's rows were subtracted."""

    def __len__(self) -> int:
        return len(self.indices)


@torch.no_grad()
def encode_images(tokenizer: HybridTokenizer, pixels: NDArray[np.uint8], max_batch: int = 32) -> TokenCache:
    """uint8 images (n, S, S, 3) to tokens, up to `max_batch` in one pass."""
    batch = batch_size(max_batch, pixels.shape[1])
    device = tokenizer.quant_conv.weight.device
    sides, width = tokenizer.quantize.sides, tokenizer.quantize.embedding.embedding_dim
    # Allocated whole: concatenating the batches would hold them twice.
    indices = torch.empty(len(pixels), sum(n * n for n in sides), dtype=torch.int16)
    rest = torch.empty(len(pixels), sides[-1] ** 2, width, dtype=torch.float16)
    for start in tqdm(range(0, len(pixels), batch), desc="tokens", mininterval=10):
        code = tokenizer.encode(to_signed(pixels[start : start + batch], device))
        indices[start : start + batch] = torch.cat(code.indices, 1)
        rest[start : start + batch] = code.last_scale_features.flatten(2).transpose(1, 2)
    return TokenCache(indices, rest)


def cached_tokens(tokenizer: HybridTokenizer, pixels: NDArray[np.uint8], path: Path, digest: str) -> TokenCache:
    """The tokens at `path` if the tokenizer of this digest made them of these images; else encodes and writes them."""
    digest += hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
    if path.exists():
        kept = torch.load(path, weights_only=True)
        if kept["digest"] == digest:
            return TokenCache(kept["indices"], kept["rest"])
    tokens = encode_images(tokenizer, pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    torch.save({"digest": digest, "indices": tokens.indices, "rest": tokens.rest}, partial)
    partial.replace(path)
    return tokens
