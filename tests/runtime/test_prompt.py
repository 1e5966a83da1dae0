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
