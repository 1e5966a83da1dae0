"""The KV cache: preallocated keys and values with one slot per image in flight.

A slot has two rows, conditional and unconditional. A row holds the context and every scale except the last, whose
keys and values no later step reads. A batch is a list of rows: batching copies and allocates nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.rotary import rotate_and_keep
from model.config import TransformerConfig

BRANCHES = 2
WORD = torch.int64
Pair = tuple[Tensor, Tensor]


class KVCache:
    """Keys and values, each (layers, 2·slots, H, tokens, d)."""

    def __init__(self, config: TransformerConfig, slots: int, device: torch.device, dtype: torch.dtype) -> None:
        self.slots = slots
        self.scale = config.attention_scale
        kept = self.tokens(config)
        shape = (config.depth, BRANCHES * slots, config.num_heads, kept, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        # The last scale's queries attend to the cached keys and to their own, which are not cached. One shared
        # buffer with the length of a full row serves every image and layer in turn.
        whole = (BRANCHES, config.num_heads, kept + config.side**2, config.head_dim)
        self.last_keys = torch.zeros(whole, device=device, dtype=dtype)
        self.last_values = torch.zeros(whole, device=device, dtype=dtype)
        self.numbers = torch.arange(
            BRANCHES * slots, device=device
        )  # row indices on the device; a host tensor would synchronise

    @staticmethod
    def tokens(config: TransformerConfig) -> int:
        """Cached tokens per row."""
        return config.context_token + sum(n * n for n in config.patch_nums[1:-1])

    @classmethod
    def bytes_per_slot(cls, config: TransformerConfig, dtype: torch.dtype) -> int:
        """Memory of one slot in bytes."""
        return 2 * BRANCHES * config.depth * config.embed_dim * cls.tokens(config) * dtype.itemsize

    def attend_cached(self, layer: int, rows: Sequence[int], start: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Writes k and v (rows, H, L, d) at token `start`, then attends to all cached tokens, (rows, H, L, d)."""
        end = start + k.shape[2]
        gathered = []
        for at, first, count in contiguous_runs(rows):
            here, there = slice(at, at + count), slice(first, first + count)
            keys, values = self.keys[layer, there], self.values[layer, there]
            keys[:, :, start:end], values[:, :, start:end] = k[here], v[here]
            gathered.append(self._softmax(q[here], keys[:, :, :end], values[:, :, :end]))
        return _join(gathered)

    def attend_new(self, step: "Step", q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As `attend_cached`, for the last scale, whose keys and values are not cached."""
        layer, rows, start, end = step.layer, step.rows, step.start, step.start + k.shape[2]
        gathered = []
        keys, values = self.last_keys[: step.branches, :, :end], self.last_values[: step.branches, :, :end]
        for at in range(0, len(rows), step.branches):
            here, there = slice(at, at + step.branches), slice(rows[at], rows[at] + step.branches)
            keys[:, :, :start], values[:, :, :start] = (
                self.keys[layer, there, :, :start],
                self.values[layer, there, :, :start],
            )
            keys[:, :, start:], values[:, :, start:] = k[here], v[here]
            gathered.append(self._softmax(q[here], keys, values))
        return _join(gathered)

    def rotate_kept(self, step: "Step", qkv: Tensor, biases: Pair, table: Pair) -> Tensor:
        """As `attend_cached`, from the projection qkv (rows, L, 3, H, d). Adds biases and rotates first."""
        end = step.start + qkv.shape[1]
        runs = contiguous_runs(step.rows)
        ranges = [self.numbers[first : first + count] for _, first, count in runs]
        indices = ranges[0] if len(ranges) == 1 else torch.cat(ranges)
        keys, values = self.keys[step.layer], self.values[step.layer]
        q = rotate_and_keep(qkv, biases, table, (keys, values), indices, step.start)
        return _join(
            [
                self._softmax(q[at : at + n], keys[first : first + n, :, :end], values[first : first + n, :, :end])
                for at, first, n in runs
            ]
        )

    def rotate_last(self, step: "Step", qkv: Tensor, biases: Pair, table: Pair) -> Tensor:
        """As `attend_new`, from the projection, as `rotate_kept`."""
        start, end = step.start, step.start + qkv.shape[1]
        keys, values = self.last_keys[: step.branches, :, :end], self.last_values[: step.branches, :, :end]
        gathered = []
        for at in range(0, len(step.rows), step.branches):
            here, there = slice(at, at + step.branches), slice(step.rows[at], step.rows[at] + step.branches)
            _copy(keys[:, :, :start], self.keys[step.layer, there, :, :start])
            _copy(values[:, :, :start], self.values[step.layer, there, :, :start])
            own = (table[0][here], table[1][here])
            q = rotate_and_keep(qkv[here], biases, own, (keys, values), self.numbers[: step.branches], start)
            gathered.append(self._softmax(q, keys, values))
        return _join(gathered)

    def _softmax(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale)


@dataclass(frozen=True)
class Step:
    """The `attend` of the transformer: attention of one layer in one step of a batch of images."""

    kv_cache: KVCache
    rows: Sequence[int]
    """The cache rows of the batch."""
    start: int
    """The position of the step's first token in a row."""
    branches: int = 1
    """Neighbouring rows of one image in the batch."""
    last: bool = False
    """Whether this is the last scale, whose keys and values are not cached."""
    layer: int = 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.last:
            return self.kv_cache.attend_new(self, q, k, v)
        return self.kv_cache.attend_cached(self.layer, self.rows, self.start, q, k, v)

    def rotate(self, qkv: Tensor, biases: Pair, table: Pair) -> Tensor:
        """As a call, from qkv (rows, L, 3, H, d), the biases (C,) of queries and values, and the rotary table."""
        return (self.kv_cache.rotate_last if self.last else self.kv_cache.rotate_kept)(self, qkv, biases, table)


def _copy(target: Tensor, source: Tensor) -> None:
    """Copies a part of a row, eight bytes at a time where that is possible: a GPU copies elements one by one."""
    if target.shape[-1] * target.itemsize % WORD.itemsize == 0:
        target, source = target.view(WORD), source.view(WORD)
    target.copy_(source)


def _join(gathered: list[Tensor]) -> Tensor:
    """Concatenates outputs (rows, H, L, d) of groups of rows. The memory layout stays (rows, L, H, d)."""
    if len(gathered) == 1:
        return gathered[0]
    return torch.cat([part.transpose(1, 2) for part in gathered]).transpose(1, 2)


def contiguous_runs(rows: Sequence[int]) -> list[tuple[int, int, int]]:
    """Rows as runs of consecutive rows, (index in `rows`, first row, length). A run is one view of the cache."""
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(rows)) if b != a + 1)]
    ends = [*starts[1:], len(rows)]
    return [(start, rows[start], end - start) for start, end in zip(starts, ends, strict=True)]
