"""Text conditioning: a Qwen2 decoder's last hidden states over the prompt's slots (docs/spec.md, section 6)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import AutoModel, DynamicCache

from model.errors import CheckpointError
from model.finite import require_finite
from model.generation import Conditioning
from model.pretrained import load_pretrained

log = logging.getLogger(__name__)

SYSTEM_PROMPT_FILE = "system_prompt.txt"
MASKED = -1e30
"""Added to the scores of masked slots: no score changes it in float32, and, unlike the dtype's min, it stays finite
where a GPU's attention multiplies it by log2(e)."""


@dataclass(frozen=True)
class EncodedPrompts:
    """Conditioning of n prompts, with their token counts."""

    conditioning: Conditioning
    """context (n, T, D) float32, mask (n, T) bool, positions (n, T) int64."""
    prompt_tokens: list[int]
    """Tokens of each prompt before truncation."""
    truncated: list[bool]
    """Whether a prompt exceeded the T slots and was truncated."""


class TextEncoder:
    """A text model with its tokenizer and system prompt. A prompt's conditioning does not depend on its batch."""

    def __init__(self, network: Any, tokenizer: Any, context_tokens: int, system_prompt: str | None) -> None:
        self.network, self.tokenizer, self.context_tokens = network.eval(), tokenizer, context_tokens
        self.device, self.dtype = network.device, network.dtype
        self.system_ids: list[int] = tokenizer(system_prompt)["input_ids"] if system_prompt else []
        self._prefix = self._read_system_prompt()

    @classmethod
    def load(
        cls,
        folder: Path | str,
        context_tokens: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        system_prompt: str | None = None,
    ) -> Self:
        """Loads a text model in transformers' format. `system_prompt` None: use the folder's file, if any.

        Raises CheckpointError.
        """
        folder = Path(folder)
        network, tokenizer = load_pretrained(
            AutoModel, folder, "text model", "transformers' format", dtype, device, attention="sdpa"
        )
        if system_prompt is None:
            system_prompt = _system_prompt_of(folder)
        return cls(network, tokenizer, context_tokens, system_prompt)

    @property
    def width(self) -> int:
        """D, the width of the conditioning."""
        return int(self.network.config.hidden_size)

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Encodes prompts. A prompt longer than the context is truncated, and `truncated` is set.

        Raises NotFiniteError.
        """
        lengths = [len(ids) for ids in self.tokenizer(list(prompts), split_special_tokens=True)["input_ids"]]
        ids = self._padded(prompts)
        mask = ids != self.tokenizer.pad_token_id
        hidden = self.network(
            input_ids=ids,
            attention_mask=self._additive_mask(mask),
            position_ids=torch.arange(self.context_tokens, device=self.device)[None] + len(self.system_ids),
            past_key_values=self._prefix_for(len(prompts)),
            use_cache=bool(self.system_ids),
        ).last_hidden_state.float()
        require_finite(hidden, "the text conditioning")
        return EncodedPrompts(
            Conditioning(hidden, mask, mask.long().cumsum(1) - 1),
            lengths,
            [length > self.context_tokens for length in lengths],
        )

    def _padded(self, prompts: Sequence[str]) -> Tensor:
        batch = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.context_tokens,
            split_special_tokens=True,  # a typed "<pad>" is text, not padding
            return_tensors="pt",
        )
        return batch["input_ids"].to(self.device)

    def _additive_mask(self, mask: Tensor) -> Tensor:
        """(n, 1, T, P + T), P the system prompt's length: 0 where attention is allowed, else a large negative number.

        Not -inf: a fully masked slot then averages over all slots instead of being NaN, and the generator attends to
        such slots too.
        """
        n, length = mask.shape
        causal = torch.ones(length, length, dtype=torch.bool, device=self.device).tril()
        own = causal & mask[:, None, :]
        system = torch.ones(n, length, len(self.system_ids), dtype=torch.bool, device=self.device)
        allowed = torch.cat([system, own], dim=2)[:, None]
        additive = torch.zeros(allowed.shape, dtype=self.dtype, device=self.device)
        return additive.masked_fill(~allowed, max(MASKED, torch.finfo(self.dtype).min))

    @torch.inference_mode()
    def _read_system_prompt(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the system prompt per layer. It is the prefix of every row, so they are computed once."""
        if not self.system_ids:
            return []
        ids = torch.tensor([self.system_ids], device=self.device)
        cache = self.network(input_ids=ids, use_cache=True).past_key_values
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _prefix_for(self, rows: int) -> DynamicCache | None:
        if not self._prefix:
            return None
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self._prefix):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        return cache


def _system_prompt_of(folder: Path) -> str:
    """The folder's system prompt; empty, with a warning, if it has none. Raises CheckpointError."""
    path = folder / SYSTEM_PROMPT_FILE
    try:
        text = path.read_text("utf-8-sig") if path.exists() else ""
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 text: {error}") from None
    if not text:
        log.warning("%s: no %s; prompts are encoded without a system prompt", folder, SYSTEM_PROMPT_FILE)
    return text
