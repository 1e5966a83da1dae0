"""The length of a prompt."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from runtime import prompt
from runtime.errors import InvalidRequest

MARKS = "a" + "\u0301\u0316" * 16_000


def test_a_prompt_counts_as_tokenizers_write_it_out() -> None:
    assert prompt.characters("\ufdfa") == 18
    assert prompt.characters("e\u0301") == 2


def test_a_prompt_that_is_too_long_as_it_stands_is_refused_without_writing_it_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Ordering its marks would take a time that grows with their square: most of a second for 64 KB.
    monkeypatch.setattr(prompt, "unicodedata", SimpleNamespace())
    assert prompt.characters(MARKS) == len(MARKS)
    with pytest.raises(InvalidRequest, match="not 32001"):
        prompt.checked(MARKS)


INVISIBLE = ["\u200d", "\ufe0f\ufe0f", "\u3164", "\u2800 \u2800", "\u202e\u202c", "\x00\x1b", "\u0301"]


@pytest.mark.parametrize("text", INVISIBLE)
def test_a_prompt_of_nothing_visible_is_refused_by_name_in_every_room(text: str) -> None:
    from hart.v1 import images_pb2

    from gateway.request.validation import validate
    from model.errors import SettingError
    from model.prompt import checked_prompt

    with pytest.raises(InvalidRequest, match="prompt: must hold something that can be seen") as caught:
        prompt.checked(text)
    assert str(caught.value).isascii()
    with pytest.raises(InvalidRequest, match="prompt: must hold something that can be seen"):
        validate(images_pb2.GenerateRequest(prompt=text), None, streams=False)
    with pytest.raises(SettingError, match=r"prompt: .* holds nothing that can be seen"):
        checked_prompt(text)


@pytest.mark.parametrize("around", ["\ufeff{}", "{}\u200b", " \ufeff\u2060 {}\r\n", "\u3000{}\u00a0"])
@pytest.mark.parametrize("text", ["a red heart", "❤", "\U0001f3f4\U000e0067\U000e007f", "赤", "!"])
def test_what_cannot_be_seen_around_a_prompt_is_taken_off_in_every_room(around: str, text: str) -> None:
    from hart.v1 import images_pb2

    from gateway.request.validation import validate
    from model.prompt import checked_prompt

    given = around.format(text)
    assert prompt.checked(given) == checked_prompt(given) == text
    assert validate(images_pb2.GenerateRequest(prompt=given), None, streams=False).prompt == text


def test_the_rules_are_the_models_own() -> None:
    from model import prompt as models

    assert (models.UNSEEN, models.BLANK, models.LONGEST_PROMPT) == (prompt.UNSEEN, prompt.BLANK, prompt.LONGEST)
