"""runtime.prompt: checks of prompts from the wire."""

from __future__ import annotations

import pytest

from runtime import prompt
from runtime.errors import InvalidRequest


@pytest.mark.parametrize(("text", "reason"), [(" ", "not 0"), ("x" * 2001, "not 2001"), ("\ufdfa" * 120, "its 120")])
def test_prompt_out_of_bounds_is_refused_by_field(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        prompt.checked(text, "prompt[3]")
    (violation,) = caught.value.violations
    assert violation.field == "prompt[3]"
    assert reason in violation.description


def test_prompts_of_a_tensor_are_checked_one_by_one() -> None:
    assert prompt.decoded([b" a ", "é".encode()], "inputs[prompt]", 2) == ["a", "é"]
    with pytest.raises(InvalidRequest, match=r"inputs\[prompt\].*at most 1"):
        prompt.decoded([b"a", b"b"], "inputs[prompt]", 1)
    with pytest.raises(InvalidRequest, match=r"inputs\[prompt\]\[1\].*UTF-8"):
        prompt.decoded([b"a", b"\xff"], "inputs[prompt]", 2)
