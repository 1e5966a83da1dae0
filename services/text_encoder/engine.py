"""The text encoder's engine: it encodes batches of prompts. It has no cache and imports no messages."""

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
    """One prompt's conditioning in host memory."""

    context: Array
    """(T, D): float16 if the model computes in float16, else float32."""
    mask: Array
    """(T,), bool."""
    positions: Array
    """(T,), int64."""
    prompt_tokens: int
    """Tokens used, at most T."""
    truncated: bool

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.context.nbytes + self.mask.nbytes + self.positions.nbytes)


class TextEncoderEngine:
    """The model behind the stage. Call `load` first; call `load` and `run` on the device thread."""

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
        """Load the weights, run the self-test and warm up. Returns measured (prompts, seconds) pairs."""
        self.compute.own_this_thread()
        with self._settings.as_settings_error("checkpoint", ModelError, SelfTestFailed):
            self._encoder: TextEncoder = self.checkpoint.load_text_encoder(self.compute.dtype, self.compute.device)
            self.digest = self.checkpoint.digest_of("text_encoder")
            self._self_test.learn()
        return [(1, self.compute.seconds(lambda: self.run([WARM_UP_PROMPT])))]

    def _probe(self) -> dict[str, Array]:
        return {"the context": self._encoded([WARM_UP_PROMPT])[0].context}

    def run(self, prompts: Sequence[str]) -> list[Encoded | BaseException]:
        """One conditioning per prompt. Raises NotFiniteError; the caller then retries each of several prompts alone."""
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
            context = context.astype(np.float16)  # lossless: these are float16 values
        mask, positions = encoded.conditioning.mask.cpu().numpy(), encoded.conditioning.positions.cpu().numpy()
        return [
            Encoded(context[i].copy(), mask[i], positions[i], min(tokens, self.context_tokens), encoded.truncated[i])
            for i, tokens in enumerate(encoded.prompt_tokens)
        ]
