"""`python -m benchmarks.sleeping.text_encoder`: constant conditionings, after the profile's seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.sleeping.engine import DIGEST, Sleeper, Table, profile_of, put_into
from runtime.server.process import run
from services.text_encoder import assembly
from services.text_encoder.config import TextEncoderSettings
from services.text_encoder.engine import Encoded, TextEncoderEngine

TABLE, SLEEPER = Table(profile_of("text_encoder")["batch"]), Sleeper()


class SleepingTextEncoder(TextEncoderEngine):
    """Each prompt has one token."""

    def load(self) -> list[tuple[float, float]]:
        """Loads no weights."""
        self.digest = DIGEST
        mask = np.zeros(self.context_tokens, bool)
        mask[0] = True
        context = np.zeros((self.context_tokens, self.context_width), np.float32)
        self._encoded_prompt = Encoded(context, mask, mask.cumsum() - 1, 1, False)
        return [(1, TABLE.of(1))]

    def run(self, prompts: Sequence[str]) -> list[Encoded | BaseException]:
        """One conditioning per prompt."""
        SLEEPER.sleep(TABLE.of(len(prompts)))
        return [self._encoded_prompt] * len(prompts)


if __name__ == "__main__":
    put_into(assembly, TextEncoderEngine=SleepingTextEncoder)
    run(TextEncoderSettings, "text_encoder", assembly.build)
