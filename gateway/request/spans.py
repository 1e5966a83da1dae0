"""The attributes of a generation request's server span."""

from __future__ import annotations

import json

from opentelemetry.trace import Span

from gateway.request.validation import ImageRequest
from runtime.printable import escaped

MAX_INT64 = 2**63 - 1
"""Maximum of an integer attribute. A larger seed is recorded as text."""


def describe_span(span: Span, request: ImageRequest, model: str, record_prompt: bool) -> None:
    """Writes the request's attributes by OpenTelemetry's gen_ai conventions."""
    seed = request.seeds[0]
    span.set_attributes(
        {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.provider.name": "hart",
            "gen_ai.output.type": "image",
            "gen_ai.request.model": model,
            "gen_ai.request.seed": seed if seed <= MAX_INT64 else str(seed),
            "gen_ai.request.choice.count": request.num_images,
            "hart.request.id": request.request_id,
        }
    )
    if record_prompt:
        messages = [{"role": "user", "parts": [{"type": "text", "content": request.prompt}]}]
        span.set_attribute("gen_ai.input.messages", escaped(json.dumps(messages, ensure_ascii=False)))
