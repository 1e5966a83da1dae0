"""The safety classifier: prompts to scores, in batches. Knows no wire and not what follows from a verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from model.checkpoint import Checkpoint, bundled
from model.device import Compute
from model.errors import ModelError
from model.safety import Policies, SafetyClassifier
from services.safety.config import SafetySettings

WARM_UP_PROMPT = "a red heart"


@dataclass(frozen=True)
class Judgement:
    """What the classifier says of one prompt."""

    scores: tuple[float, ...]
    """0 (safe) to 1, in the policies' order."""
    violated: tuple[str, ...]
    """The policies whose score is above the threshold, the worst first."""


class SafetyEngine:
    """Loaded by `load`; `run` belongs on the same thread."""

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
        """With the operator's threshold; the version says so."""
        self.digest = ""

    def load(self) -> list[tuple[float, float]]:
        """Reads the weights and warms up. Returns (prompts, seconds) as measured."""
        self.compute.own_this_thread()
        with self._settings.as_settings_error("checkpoint", ModelError):
            self._classifier: SafetyClassifier = self.checkpoint.load_safety(self.compute.dtype, self.compute.device)
            self.digest = self.checkpoint.digest_of("safety")
        self.run([WARM_UP_PROMPT])
        return [(1, self.compute.seconds(lambda: self.run([WARM_UP_PROMPT])))]

    def run(self, prompts: Sequence[str]) -> list[Judgement | BaseException]:
        """One judgement per prompt."""
        return [self._judge(tuple(row)) for row in self._classifier.score(prompts).tolist()]

    def _judge(self, scores: tuple[float, ...]) -> Judgement | BaseException:
        if not all(math.isfinite(score) for score in scores):  # no comparison with NaN is true: it would pass as safe
            return ArithmeticError(f"scores {scores} are not finite")
        over = [(score, name) for score, name in zip(scores, self.policies.names, strict=True)]
        violated = [name for score, name in sorted(over, reverse=True) if score > self.policies.threshold]
        return Judgement(scores, tuple(violated))
