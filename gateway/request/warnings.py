"""Warnings about a request that succeeded: their codes and sentences."""

from __future__ import annotations

from hart.v1 import images_pb2, safety_pb2, text_encoder_pb2


def warnings_of(verdict: safety_pb2.Verdict, encoded: text_encoder_pb2.EncodeResponse) -> list[images_pb2.Warning]:
    """The warnings of one request, the most serious first."""
    found = []
    if verdict.action == safety_pb2.SAFETY_ACTION_REPLACE:
        text = "The prompt was unsafe; the operator's replacement was drawn in its place."
        found.append(images_pb2.Warning(code=images_pb2.WARNING_CODE_PROMPT_REPLACED, text=text))
    if encoded.prompt_truncated:
        text = f"The prompt is too long for the model: its first {encoded.prompt_tokens} tokens were used."
        found.append(images_pb2.Warning(code=images_pb2.WARNING_CODE_PROMPT_TRUNCATED, text=text))
    words = list(encoded.unfamiliar_words)
    if words:
        text = f"The model was not trained on: {', '.join(words)}. The picture may not show what was meant."
        found.append(images_pb2.Warning(code=images_pb2.WARNING_CODE_PROMPT_OUT_OF_VOCABULARY, text=text, words=words))
    return found
