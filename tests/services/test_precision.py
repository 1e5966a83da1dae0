"""services.*.engine: half precision inside, and the wire's dtypes outside."""

from __future__ import annotations

from typing import Literal

import pytest

from benchmarks.harness.checkpoint import UNSAFE_PROMPT
from services.safety.config import SafetySettings
from services.safety.engine import Judgement, SafetyEngine

Dtype = Literal["bfloat16", "float16"]
HALVES = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])


@HALVES
def test_safety_judges_in_half_precision(folder: str, dtype: Dtype) -> None:
    engine = SafetyEngine(SafetySettings(checkpoint=folder, dtype=dtype))
    engine.load()
    safe, unsafe = engine.run(["a red heart", UNSAFE_PROMPT])
    assert isinstance(safe, Judgement)
    assert isinstance(unsafe, Judgement)
    assert (safe.violated, unsafe.violated) == ((), ("dangerous_content",))
