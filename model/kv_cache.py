"""The keys and values of all pictures in flight: one slab, sized once, with a slot per picture.

A slot holds two rows, conditional and unconditional; a row holds the context and every scale but the last, whose own
keys and values nobody reads later. Pictures are batched by naming their slots: nothing is copied, nothing grows.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import TransformerConfig

BRANCHES = 2


class KVCache:
    """Layers x rows of keys and values, (layers, 2·slots, H, tokens, d) each."""

    def __init__(self, config: TransformerConfig, slots: int, device: torch.device, dtype: torch.dtype) -> None:
        self.slots = slots
        self.scale = config.attention_scale
        kept = self.tokens(config)
        shape = (config.depth, BRANCHES * slots, config.num_heads, kept, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        # The last scale's queries attend to what is kept and to their own keys, which are not kept: one shared
        # stretch of memory, as long as a whole row, serves every picture and layer in turn.
        whole = (BRANCHES, config.num_heads, kept + config.side**2, config.head_dim)
        self.last_keys = torch.zeros(whole, device=device, dtype=dtype)
        self.last_values = torch.zeros(whole, device=device, dtype=dtype)

    @staticmethod
    def tokens(config: TransformerConfig) -> int:
        """How many tokens a row keeps."""
        return config.context_token + sum(n * n for n in config.patch_nums[1:-1])

    @classmethod
    def bytes_per_slot(cls, config: TransformerConfig, dtype: torch.dtype) -> int:
        """Memory of one picture in flight."""
        return 2 * BRANCHES * config.depth * config.embed_dim * cls.tokens(config) * dtype.itemsize

    def attend_cached(self, layer: int, rows: Sequence[int], start: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keeps k and v (rows, H, L, d) from token `start` on, and attends to all that the rows hold then."""
        end = start + k.shape[2]
        gathered = []
        for at, first, count in contiguous_runs(rows):
            here, there = slice(at, at + count), slice(first, first + count)
            keys, values = self.keys[layer, there], self.values[layer, there]
            keys[:, :, start:end], values[:, :, start:end] = k[here], v[here]
            gathered.append(self._softmax(q[here], keys[:, :, :end], values[:, :, :end]))
        return _join(gathered)

    def attend_new(self, layer: int, rows: Sequence[int], start: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same for the last scale, whose keys and values are forgotten at once."""
        end = start + k.shape[2]
        gathered = []
        keys, values = self.last_keys[:, :, :end], self.last_values[:, :, :end]
        for at in range(0, len(rows), BRANCHES):
            here, there = slice(at, at + BRANCHES), slice(rows[at], rows[at] + BRANCHES)
            keys[:, :, :start], values[:, :, :start] = (
                self.keys[layer, there, :, :start],
                self.values[layer, there, :, :start],
            )
            keys[:, :, start:], values[:, :, start:] = k[here], v[here]
            gathered.append(self._softmax(q[here], keys, values))
        return _join(gathered)

    def _softmax(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale)


def _join(gathered: list[Tensor]) -> Tensor:
    """What groups of rows gathered, (rows, H, L, d) each, as one; in memory heads stay beside their token."""
    if len(gathered) == 1:
        return gathered[0]
    return torch.cat([part.transpose(1, 2) for part in gathered]).transpose(1, 2)


def contiguous_runs(rows: Sequence[int]) -> list[tuple[int, int, int]]:
    """Rows as stretches of neighbours, (place in `rows`, first row, length): a stretch is one view."""
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(rows)) if b != a + 1)]
    ends = [*starts[1:], len(rows)]
    return [(start, rows[start], end - start) for start, end in zip(starts, ends, strict=True)]
