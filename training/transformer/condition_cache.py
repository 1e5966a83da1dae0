"""The residual head's inputs, computed once by a frozen transformer and kept in two mapped files.

A row is one pass over one image: true or partly exchanged tokens, one of its captions or none. The head then trains on
rows alone, without the transformer.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from model.quantizer import Quantizer
from model.transformer import Transformer
from training.core.device import autocast, conditioning_to, to_device
from training.core.images import PIXELS, batch_size
from training.transformer.teacher_forcing import TeacherForcing, drop_conditions, exchange_tokens, maps_of
from training.transformer.train import TrainingData


@dataclass(frozen=True)
class CacheConfig:
    """How many rows there are and of which kind."""

    passes: int = 4
    """Rows of each image. The first holds true tokens and the first caption."""
    max_bytes: int = 2 * 10**9
    """Size of the files. If all positions of all rows take more, a random share of the positions is kept."""
    corrupted: float = 0.3
    """Up to this share of the tokens shown is exchanged for other images'."""
    dropped: float = 0.1
    """Share of rows without a prompt: the unconditional branch of guidance."""
    seed: int = 0


@dataclass(frozen=True)
class ConditionCache:
    """m rows of P positions each; the first `clean` rows hold true tokens and a caption."""

    conditions: NDArray[np.float16]
    """(m, P, C)."""
    residuals: NDArray[np.float16]
    """(m, P, Z)."""
    clean: int

    def __len__(self) -> int:
        return len(self.conditions)


def cached_conditions(
    network: Transformer, quantizer: Quantizer, data: TrainingData, config: CacheConfig, path: Path
) -> ConditionCache:
    """The rows at PATH.conditions and PATH.residuals if PATH.json says they are of these weights and data; else
    computes and writes them."""
    count, length = len(data.tokens) * config.passes, quantizer.side**2
    widths = (network.config.embed_dim, quantizer.embedding.embedding_dim)
    kept = max(1, min(length, config.max_bytes // (2 * sum(widths) * count)))
    files = [path.with_suffix(suffix) for suffix in (".conditions", ".residuals")]
    shapes = [(count, kept, width) for width in widths]
    wanted = {"config": vars(config), "kept": kept, "made_of": _digest(network, data)}
    if not _is_whole(path, wanted):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
        arrays = [np.memmap(file, np.float16, "w+", shape=shape) for file, shape in zip(files, shapes, strict=True)]
        start = 0
        for batch in _rows(network, quantizer, data, config):
            where = torch.rand(batch[0].shape[:2]).argsort(1)[:, :kept, None]
            for array, values in zip(arrays, batch, strict=True):
                chosen = values.gather(1, where.expand(-1, -1, values.shape[2]))
                array[start : start + len(values)] = chosen.half().numpy()
            start += len(batch[0])
        for array in arrays:
            array.flush()
        path.with_suffix(".json").write_text(json.dumps(wanted))
    mapped = [np.memmap(file, np.float16, "c", shape=shape) for file, shape in zip(files, shapes, strict=True)]
    return ConditionCache(mapped[0], mapped[1], len(data.tokens))


@torch.no_grad()
def _rows(
    network: Transformer, quantizer: Quantizer, data: TrainingData, config: CacheConfig
) -> Iterator[tuple[Tensor, Tensor]]:
    """Conditions (b, N², C) and residuals (b, N², Z) on the CPU, batch by batch, pass after pass."""
    device, count = network.word_embed.weight.device, len(data.tokens)
    teacher = TeacherForcing(network).to(device)
    size, last = batch_size(64, PIXELS * quantizer.side), quantizer.side**2
    starts = [(turn, i) for turn in range(config.passes) for i in range(0, count, size)]
    for turn, i in tqdm(starts, desc="conditions", mininterval=10):
        torch.manual_seed(config.seed * 1_000_003 + turn * count + i)
        images = torch.arange(i, min(i + size, count))
        indices = to_device(data.tokens.indices[images], device).long()
        rest = to_device(data.tokens.rest[images], device).float()
        conditioning = conditioning_to(data.text.any(images) if turn else data.text.first(images), device)
        shown = indices
        if turn:
            shown = exchange_tokens(indices, torch.rand(len(images), 1, device=device) * config.corrupted)
            conditioning = drop_conditions(conditioning, torch.rand(len(images), device=device) < config.dropped)
        with autocast(device):
            hidden = teacher(conditioning, maps_of(quantizer, shown)).last_hidden
            codes = quantizer.embedding(indices[:, -last:])
            condition = network.diffusion_condition(hidden, codes)
        yield condition.float().cpu(), (rest - codes).cpu()


def _is_whole(path: Path, wanted: dict[str, object]) -> bool:
    try:
        return bool(json.loads(path.with_suffix(".json").read_text()) == wanted)
    except (OSError, ValueError):
        return False


def _digest(network: Transformer, data: TrainingData) -> str:
    """Of everything that a row depends on: the weights but the head's, tokens and captions."""
    total = hashlib.sha256()
    weights = [tensor for name, tensor in network.state_dict().items() if not name.startswith("diffloss.")]
    for tensor in [*weights, data.tokens.indices, data.tokens.rest, data.text.context, data.text.mask]:
        total.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    return total.hexdigest()
