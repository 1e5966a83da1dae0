"""training.safety.innocent: twins of unsafe frames, other languages and random text, none of them held out."""

import re

import numpy as np
import pytest

from training.safety.innocent import Innocents
from training.safety.ordinary import held_out_prompts
from training.safety.prompts import GRAMMAR

WORDS = ["moon", "orange juice", "oak", "kite", "harbor", "violin"]
FOREIGN = ["луна", "月", "القمر"]


@pytest.fixture
def innocents() -> Innocents:
    return Innocents(WORDS, FOREIGN, held_out_prompts())


def test_every_frame_of_an_unsafe_word_has_an_innocent_twin(innocents: Innocents) -> None:
    rng = np.random.default_rng(0)
    twins = {innocents.twin(rng) for _ in range(3000)}
    for frame in GRAMMAR["bad_word"]:
        pattern = re.sub(r"\\\{\w+\\\}", ".+", re.escape(frame)).replace("a\\ ", "an?\\ ")
        assert any(re.fullmatch(pattern, twin) for twin in twins), frame


def test_no_request_is_held_out_and_none_has_an_empty_slot(innocents: Innocents) -> None:
    rng = np.random.default_rng(1)
    drawn = [innocents.draw(rng) for _ in range(2000)]
    assert not {text.lower() for text in drawn} & held_out_prompts()
    assert not [text for text in drawn if re.search(r"\{(bad|thing|person|place)\}", text)]
    assert any("луна" in text for text in drawn)
    assert any(word in text for text in drawn for word in WORDS)


def test_random_text_has_letters_of_many_scripts_digits_and_signs(innocents: Innocents) -> None:
    rng = np.random.default_rng(2)
    letters = "".join(innocents.noise(rng) for _ in range(1500))
    for first, last in ((0x0400, 0x04FF), (0x0620, 0x064A), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0x30, 0x39)):
        assert any(first <= ord(letter) <= last for letter in letters), hex(first)


def test_text_around_an_unsafe_prompt_keeps_it_whole(innocents: Innocents) -> None:
    rng = np.random.default_rng(3)
    mixed = {innocents.around("a naked woman", rng) for _ in range(50)}
    assert len(mixed) > 30
    assert all(text.startswith("a naked woman ") or text.endswith(" a naked woman") for text in mixed)


def test_words_of_held_out_prompts_alone_are_an_error() -> None:
    innocents = Innocents(["moon"], ["moon"], frozenset({"x"}))
    object.__setattr__(innocents, "noise", lambda rng: "x")
    for name in ("twin", "framed", "other_language"):
        object.__setattr__(innocents, name, lambda rng: "X")
    with pytest.raises(RuntimeError, match="held out"):
        innocents.draw(np.random.default_rng(0))
