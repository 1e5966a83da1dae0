"""runtime.prompt: checks of prompts from the wire."""

from __future__ import annotations

import pytest
from hart.v1 import images_pb2

from gateway.request.validation import validate
from model.errors import SettingError
from model.prompt import checked_prompt
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


INVISIBLE = ["\u200d", "\ufe0f\ufe0f", "\u3164", "\u2800 \u2800", "\u202e\u202c", "\x00\x1b", "\u0301"]


@pytest.mark.parametrize("text", INVISIBLE)
def test_invisible_prompt_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="prompt: must have a visible character") as caught:
        prompt.checked(text)
    assert str(caught.value).isascii()
    with pytest.raises(InvalidRequest, match="prompt: must have a visible character"):
        validate(images_pb2.GenerateRequest(prompt=text), None, streams=False)
    with pytest.raises(SettingError, match=r"prompt: must have a visible character"):
        checked_prompt(text)


@pytest.mark.parametrize("around", ["\ufeff{}", "{}\u200b", " \ufeff\u2060 {}\r\n", "\u3000{}\u00a0"])
@pytest.mark.parametrize("text", ["a red heart", "❤", "\U0001f3f4\U000e0067\U000e007f", "赤", "!"])
def test_invisible_characters_around_a_prompt_are_trimmed(around: str, text: str) -> None:
    given = around.format(text)
    assert prompt.checked(given) == checked_prompt(given) == text
    assert validate(images_pb2.GenerateRequest(prompt=given), None, streams=False).prompt == text
