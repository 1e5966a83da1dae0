"""The text encoder: prompts to conditioning, in batches. Knows no wire and keeps no answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.checkpoint import Checkpoint, bundled
from model.device import Compute
from model.errors import ModelError, NotFiniteError
from model.text import TextEncoder
from runtime.work.self_test import SelfTest, SelfTestFailed
from services.text_encoder.config import TextEncoderSettings

Array = np.ndarray[Any, Any]
WARM_UP_PROMPT = "a red heart"


@dataclass(frozen=True)
class Encoded:
    """One prompt's conditioning, on the host."""

    context: Array
    """(T, D): float32, or float16 where the model computes in it."""
    mask: Array
    """(T,), bool."""
    positions: Array
    """(T,), int64."""
    prompt_tokens: int
    """Tokens that were used, at most T."""
    truncated: bool

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.context.nbytes + self.mask.nbytes + self.positions.nbytes)


class TextEncoderEngine:
    """Loaded by `load`; `run` belongs on the same thread."""

    def __init__(self, settings: TextEncoderSettings) -> None:
        self._settings = settings
        with settings.as_settings_error("device", ModelError):
            self.compute = Compute.of(settings.device, settings.dtype, settings.torch_threads)
        with settings.as_settings_error("checkpoint", ModelError):
            self.checkpoint = Checkpoint.open(settings.checkpoint or bundled())
            config = self.checkpoint.transformer_config
            self.vocabulary = self.checkpoint.vocabulary()
        self.context_tokens, self.context_width = config.context_token, config.context_dim
        self.digest = ""
        shape = (self.context_tokens, self.context_width)
        self._self_test = SelfTest(self._probe, {"the context": shape}, ("the context",))

    def load(self) -> list[tuple[float, float]]:
        """Reads the weights, warms up and judges the result. Returns (prompts, seconds) as measured."""
        self.compute.own_this_thread()
        with self._settings.as_settings_error("checkpoint", ModelError, SelfTestFailed):
            self._encoder: TextEncoder = self.checkpoint.load_text_encoder(self.compute.dtype, self.compute.device)
            self.digest = self.checkpoint.digest_of("text_encoder")
            self._self_test.learn()
        return [(1, self.compute.seconds(lambda: self.run([WARM_UP_PROMPT])))]

    def _probe(self) -> dict[str, Array]:
        return {"the context": self._encoded([WARM_UP_PROMPT])[0].context}

    def run(self, prompts: Sequence[str]) -> list[Encoded | BaseException]:
        """One conditioning per prompt. Raises NotFiniteError; of several prompts each is then to be tried alone."""
        try:
            return [*self._encoded(prompts)]
        except NotFiniteError:
            if len(prompts) == 1:
                self._self_test.repeat()
            raise

    def _encoded(self, prompts: Sequence[str]) -> list[Encoded]:
        encoded = self._encoder.encode(prompts)
        context = encoded.conditioning.context.cpu().numpy()
        if self.compute.precision == "float16":
            context = context.astype(np.float16)  # loses nothing: these are float16 values
        mask, positions = encoded.conditioning.mask.cpu().numpy(), encoded.conditioning.positions.cpu().numpy()
        return [
            Encoded(context[i].copy(), mask[i], positions[i], min(tokens, self.context_tokens), encoded.truncated[i])
            for i, tokens in enumerate(encoded.prompt_tokens)
        ]
