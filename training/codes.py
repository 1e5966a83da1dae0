"""Pictures as the transformer learns them: tokens of every scale and what remains, made once and kept on disk.

Knows no words.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from model.tokenizer import HybridTokenizer
from training.images import at_once, to_signed


@dataclass(frozen=True)
class Codes:
    """n pictures as tokens, L = Σ n_k²."""

    indices: Tensor
    """(n, L) int16: codebook rows of all scales, one after another."""
    rest: Tensor
    """(n, N², Z) float16: what remained before the last scale's rows were subtracted."""

    def __len__(self) -> int:
        return len(self.indices)


@torch.no_grad()
def encode(tokenizer: HybridTokenizer, pixels: NDArray[np.uint8], most: int = 32) -> Codes:
    """uint8 pictures (n, S, S, 3) to codes, `most` at once."""
    batch = at_once(most, pixels.shape[1])
    device = tokenizer.quant_conv.weight.device
    sides, width = tokenizer.quantize.sides, tokenizer.quantize.embedding.embedding_dim
    # Made whole at first: put together at the end they would be held twice.
    indices = torch.empty(len(pixels), sum(n * n for n in sides), dtype=torch.int16)
    rest = torch.empty(len(pixels), sides[-1] ** 2, width, dtype=torch.float16)
    for start in tqdm(range(0, len(pixels), batch), desc="codes", mininterval=10):
        code = tokenizer.encode(to_signed(pixels[start : start + batch], device))
        indices[start : start + batch] = torch.cat(code.indices, 1)
        rest[start : start + batch] = code.last_scale_features.flatten(2).transpose(1, 2)
    return Codes(indices, rest)


def cached_codes(tokenizer: HybridTokenizer, pixels: NDArray[np.uint8], path: Path, digest: str) -> Codes:
    """The codes at `path` if the tokenizer of this digest made them of these very pictures; else makes them."""
    digest += hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
    if path.exists():
        kept = torch.load(path, weights_only=True)
        if kept["digest"] == digest:
            return Codes(kept["indices"], kept["rest"])
    codes = encode(tokenizer, pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    torch.save({"digest": digest, "indices": codes.indices, "rest": codes.rest}, partial)
    partial.replace(path)
    return codes
