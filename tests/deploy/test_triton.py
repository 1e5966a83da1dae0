"""deploy.triton.backend: models inside Triton's Python backend accept what our stages accept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deploy.triton import backend
from runtime.errors import InvalidRequest


def prompts(*texts: bytes) -> Any:
    return np.array(texts, object)


def test_prompts_are_trimmed() -> None:
    assert backend._prompts(prompts(b" a red heart ", "ein rotes Herz ❤".encode())) == [
        "a red heart",
        "ein rotes Herz ❤",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (prompts(), "must not be empty"),
        (prompts(*[b"a"] * 65), "at most 64"),
        (prompts(b"a", b" "), r"inputs\[prompt\]\[1\]"),
        (prompts(b"\xff"), "UTF-8"),
        (prompts(b"x" * 2001), "1 to 2000"),
        (prompts(("\ufdfa" * 2000).encode()), "at most 2000"),
    ],
    ids=["none", "many", "blank", "bytes", "long", "written out long"],
)
def test_prompt_that_our_stages_refuse_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        backend._prompts(given)
