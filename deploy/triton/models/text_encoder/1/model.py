"""`text_encoder` on Triton: `prompt` to `context`, `mask` and `positions`. Triton does the batching."""

from __future__ import annotations

from typing import Any

import torch

from deploy.triton import backend


class TritonPythonModel:
    """The interface of Triton's Python backend."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Load the weights and encode a prompt, so that loading a broken model fails."""
        self._encoder = backend.checkpoint().load_text_encoder()
        self._encode(["a red heart"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request."""
        return [backend.answer(request, self._encode) for request in requests]

    def _encode(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        found = self._encoder.encode(prompts).conditioning
        return {"context": found.context.float(), "mask": found.mask, "positions": found.positions}
