"""The safety stage's engine: it scores batches of prompts. It imports no messages and takes no action."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.checkpoint import Checkpoint, bundled
from model.device import Compute
from model.errors import ModelError, NotFiniteError
from model.safety import Policies, SafetyClassifier
from runtime.work.self_test import SelfTest, SelfTestFailed
from services.safety.config import SafetySettings

Array = np.ndarray[Any, Any]
WARM_UP_PROMPT = "a red heart"
UNDECIDED = 0.5
"""The score if the network prefers neither answer, e.g. with all-zero weights."""


@dataclass(frozen=True)
class Judgement:
    """The classifier's result for one prompt."""

    scores: tuple[float, ...]
    """0 (safe) to 1, in the order of the policies."""
    violated: tuple[str, ...]
    """The policies whose score exceeds the threshold, by descending score."""


class SafetyEngine:
    """The model behind the stage. Call `load` first; call `load` and `run` on the device thread."""

    def __init__(self, settings: SafetySettings) -> None:
        self._settings = settings
        with settings.as_settings_error("device", ModelError):
            self.compute = Compute.of(settings.device, settings.dtype, settings.torch_threads)
        with settings.as_settings_error("checkpoint", ModelError):
            self.checkpoint = Checkpoint.open(settings.checkpoint or bundled())
            policies = Policies.of_folder(self.checkpoint.safety)
        if settings.threshold is not None:
            version = f"{policies.version}@{settings.threshold:g}"
            policies = dataclasses.replace(policies, threshold=settings.threshold, version=version)
        self.policies = policies
        """The checkpoint's policies. A threshold from the settings is part of their version."""
        self.digest = ""
        shapes = {"the scores": (len(policies.names),)}
        self._self_test = SelfTest(
            self._probe, shapes, ("the scores",), constant=True
        )  # scores of a safe prompt may be equal

    def load(self) -> list[tuple[float, float]]:
        """Load the weights, run the self-test and warm up. Returns measured (prompts, seconds) pairs."""
        self.compute.own_this_thread()
        with self._settings.as_settings_error("checkpoint", ModelError, SelfTestFailed):
            self._classifier: SafetyClassifier = self.checkpoint.load_safety(self.compute.dtype, self.compute.device)
            self.digest = self.checkpoint.digest_of("safety")
            self._self_test.learn()
        return [(1, self.compute.seconds(lambda: self.run([WARM_UP_PROMPT])))]

    def _probe(self) -> dict[str, Array]:
        scores = self._classifier.score([WARM_UP_PROMPT])[0].numpy()
        if (scores == UNDECIDED).all():
            raise SelfTestFailed(f"the scores are all {UNDECIDED}: the network prefers neither answer")
        return {"the scores": scores}

    def run(self, prompts: Sequence[str]) -> list[Judgement | BaseException]:
        """One judgement per prompt. Raises NotFiniteError; the caller then retries each of several prompts alone."""
        try:
            return [self._judge(tuple(row)) for row in self._classifier.score(prompts).tolist()]
        except NotFiniteError:
            if len(prompts) == 1:
                self._self_test.repeat()
            raise

    def _judge(self, scores: tuple[float, ...]) -> Judgement:
        over = [(score, name) for score, name in zip(scores, self.policies.names, strict=True)]
        violated = [name for score, name in sorted(over, reverse=True) if score > self.policies.threshold]
        return Judgement(scores, tuple(violated))
