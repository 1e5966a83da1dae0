"""`safety` on Triton: `prompt` to `score` and `unsafe`. Triton batches."""

from __future__ import annotations

from typing import Any

import torch

from deploy.triton import backend
from model.safety import Policies


class TritonPythonModel:
    """The class that Triton's Python backend calls."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Read the weights and judge a prompt: a broken model is not loaded."""
        checkpoint = backend.checkpoint()
        self._classifier = checkpoint.load_safety()
        self._threshold = Policies.of_folder(checkpoint.safety).threshold
        self._judge(["a red heart"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request."""
        return [backend.answer(request, self._judge) for request in requests]

    def _judge(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        scores = self._classifier.score(prompts)
        return {"score": scores, "unsafe": (scores > self._threshold).any(1)}
