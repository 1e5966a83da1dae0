"""The attributes of a generation request's server span."""

from __future__ import annotations

import json

from opentelemetry.trace import Span

from gateway.request.validation import ImageRequest
from runtime.observability import semconv
from runtime.printable import escaped

MAX_INT64 = 2**63 - 1
"""Maximum of an integer attribute. A larger seed is recorded as text."""


def describe_span(span: Span, request: ImageRequest, model: str, record_prompt: bool) -> None:
    """Writes the request's attributes by OpenTelemetry's gen_ai conventions."""
    seed = request.seeds[0]
    span.set_attributes(
        {
            semconv.GEN_AI_OPERATION_NAME: semconv.GENERATE_CONTENT,
            semconv.GEN_AI_PROVIDER_NAME: semconv.PROVIDER,
            semconv.GEN_AI_OUTPUT_TYPE: semconv.IMAGE,
            semconv.GEN_AI_REQUEST_MODEL: model,
            semconv.GEN_AI_REQUEST_SEED: seed if seed <= MAX_INT64 else str(seed),
            semconv.GEN_AI_REQUEST_CHOICE_COUNT: request.num_images,
            "hart.request.id": request.request_id,
        }
    )
    if record_prompt:
        messages = [{"role": "user", "parts": [{"type": "text", "content": request.prompt}]}]
        span.set_attribute(semconv.GEN_AI_INPUT_MESSAGES, escaped(json.dumps(messages, ensure_ascii=False)))
