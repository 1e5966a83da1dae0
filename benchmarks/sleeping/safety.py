"""`python -m benchmarks.sleeping.safety`: every prompt is safe, after the profile's seconds."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.sleeping.engine import DIGEST, Sleeper, Table, profile_of, put_into
from runtime.server.process import run
from services.safety import assembly
from services.safety.config import SafetySettings
from services.safety.engine import Judgement, SafetyEngine

TABLE, SLEEPER = Table(profile_of("safety")["batch"]), Sleeper()


class SleepingSafety(SafetyEngine):
    """Scores are 0."""

    def load(self) -> list[tuple[float, float]]:
        """Loads no weights."""
        self.digest = DIGEST
        return [(1, TABLE.of(1))]

    def run(self, prompts: Sequence[str]) -> list[Judgement | BaseException]:
        """One judgement per prompt."""
        SLEEPER.sleep(TABLE.of(len(prompts)))
        return [Judgement(tuple(0.0 for _ in self.policies.names), ())] * len(prompts)


if __name__ == "__main__":
    put_into(assembly, SafetyEngine=SleepingSafety)
    run(SafetySettings, "safety", assembly.build)
