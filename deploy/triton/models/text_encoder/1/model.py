"""`text_encoder` on Triton: `prompt` to `context`, `mask` and `positions`. Triton batches."""

from __future__ import annotations

from typing import Any

import torch

from deploy.triton import backend


class TritonPythonModel:
    """The class that Triton's Python backend calls."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Read the weights and encode a prompt: a broken model is not loaded."""
        self._encoder = backend.checkpoint().load_text_encoder()
        self._encode(["a red heart"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request."""
        return [backend.answer(request, self._encode) for request in requests]

    def _encode(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        found = self._encoder.encode(prompts).conditioning
        return {"context": found.context.float(), "mask": found.mask, "positions": found.positions}
