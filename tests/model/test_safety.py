"""model.safety: long prompts take bounded memory and hide nothing."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.checkpoint import FORBIDDEN
from model.checkpoint import Checkpoint
from model.safety import OVERLAP_TOKENS, PASS_TOKENS, PIECE_TOKENS, SafetyClassifier

QUESTION_TOKENS = 32
"""Upper bound of the tokens that the tiny model's template and guideline add to a piece."""


@pytest.fixture(scope="module")
def classifier(tiny: Path) -> SafetyClassifier:
    return Checkpoint.open(tiny).load_safety()


def words(total: int, **at: int) -> str:
    """`total` filler words, with the given words at their places."""
    filled = ["word"] * total
    for word, place in at.items():
        filled[place] = word
    return " ".join(filled)


def test_tokens_per_forward_pass_are_bounded(classifier: SafetyClassifier) -> None:
    shapes: list[tuple[int, ...]] = []

    def look(_network: Any, _args: Any, kwargs: Any) -> None:
        shapes.append(tuple(kwargs["input_ids"].shape))

    with classifier.network.register_forward_pre_hook(look, with_kwargs=True):
        scores = classifier.score([words(20_000), "a red heart", words(600)])
    assert scores.shape == (3, 2)
    assert max(tokens for _, tokens in shapes) <= PIECE_TOKENS + QUESTION_TOKENS
    assert max(rows * tokens for rows, tokens in shapes) <= PASS_TOKENS


@pytest.mark.parametrize("place", [0, PIECE_TOKENS - 1, PIECE_TOKENS, 1000, 1499])
def test_unsafe_words_are_found_anywhere_in_a_long_prompt(classifier: SafetyClassifier, place: int) -> None:
    """ "patience" outweighs ten forbidden words in the same piece."""
    far = 1499 if place < 750 else 0
    verdict = classifier.check([words(1500, **{FORBIDDEN: place, "patience": far})])[0]
    assert verdict.violated == "dangerous_content"


@pytest.mark.parametrize("start", range(0, 1500 - OVERLAP_TOKENS, OVERLAP_TOKENS // 2))
def test_pieces_overlap_so_that_no_unsafe_phrase_is_split(classifier: SafetyClassifier, start: int) -> None:
    """The second policy triggers on eleven forbidden words in one piece."""
    filled = ["word"] * 1500
    filled[start : start + 11] = [FORBIDDEN] * 11
    assert classifier.check([" ".join(filled)])[0].scores["harassment"] > 0.5


def test_special_tokens_in_a_prompt_are_plain_text(classifier: SafetyClassifier) -> None:
    tokenizer = classifier.tokenizer
    seen: list[list[int]] = []

    def look(_network: Any, _args: Any, kwargs: Any) -> None:
        seen.extend(
            row[mask.bool()].tolist() for row, mask in zip(kwargs["input_ids"], kwargs["attention_mask"], strict=True)
        )

    with classifier.network.register_forward_pre_hook(look, with_kwargs=True):
        classifier.score(["a red heart", " ".join(["heart", *tokenizer.all_special_tokens])])
    special = [
        [token for token in row if token in set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}] for row in seen
    ]
    assert len(special) == 2 * len(classifier.policies.names)
    assert all(found == special[0] == [tokenizer.bos_token_id] for found in special)
