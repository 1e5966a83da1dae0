"""`safety` on Triton: `prompt` to `score` and `unsafe`. Triton does the batching."""

from __future__ import annotations

from typing import Any

import torch

from deploy.triton import backend
from model.safety import Policies


class TritonPythonModel:
    """The interface of Triton's Python backend."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Load the weights and score a prompt, so that loading a broken model fails."""
        checkpoint = backend.checkpoint()
        self._classifier = checkpoint.load_safety()
        self._threshold = Policies.of_folder(checkpoint.safety).threshold
        self._score(["a red heart"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request."""
        return [backend.answer(request, self._score) for request in requests]

    def _score(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        scores = self._classifier.score(prompts)
        return {"score": scores, "unsafe": (scores > self._threshold).any(1)}
