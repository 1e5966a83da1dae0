"""Long prompts before the safety classifier: memory is bounded, and nothing hides in length."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.checkpoint import FORBIDDEN
from model.checkpoint import Checkpoint
from model.safety import OVERLAP_TOKENS, PASS_TOKENS, PIECE_TOKENS, SafetyClassifier

QUESTION_TOKENS = 32
"""More than the tiny model's template and guideline add to a piece."""


@pytest.fixture(scope="module")
def classifier(tiny: Path) -> SafetyClassifier:
    return Checkpoint.open(tiny).load_safety()


def words(total: int, **at: int) -> str:
    """So many words without meaning, and these among them."""
    filled = ["word"] * total
    for word, place in at.items():
        filled[place] = word
    return " ".join(filled)


def test_one_pass_through_the_network_is_bounded_whatever_the_prompts(classifier: SafetyClassifier) -> None:
    shapes: list[tuple[int, ...]] = []

    def look(_network: Any, _args: Any, kwargs: Any) -> None:
        shapes.append(tuple(kwargs["input_ids"].shape))

    with classifier.network.register_forward_pre_hook(look, with_kwargs=True):
        scores = classifier.score([words(20_000), "a red heart", words(600)])
    assert scores.shape == (3, 2)
    assert max(tokens for _, tokens in shapes) <= PIECE_TOKENS + QUESTION_TOKENS
    assert max(rows * tokens for rows, tokens in shapes) <= PASS_TOKENS


@pytest.mark.parametrize("place", [0, PIECE_TOKENS - 1, PIECE_TOKENS, 1000, 1499])
def test_what_is_unsafe_anywhere_in_a_long_prompt_is_unsafe(classifier: SafetyClassifier, place: int) -> None:
    """ "patience" outweighs ten forbidden words that are judged together with it."""
    far = 1499 if place < 750 else 0
    verdict = classifier.check([words(1500, **{FORBIDDEN: place, "patience": far})])[0]
    assert verdict.violated == "dangerous_content"


@pytest.mark.parametrize("start", range(0, 1500 - OVERLAP_TOKENS, OVERLAP_TOKENS // 2))
def test_no_cut_parts_what_is_unsafe_only_together(classifier: SafetyClassifier, start: int) -> None:
    """The second policy wants eleven forbidden words in one piece."""
    filled = ["word"] * 1500
    filled[start : start + 11] = [FORBIDDEN] * 11
    assert classifier.check([" ".join(filled)])[0].scores["harassment"] > 0.5


def test_a_prompt_cannot_write_the_templates_own_tokens(classifier: SafetyClassifier) -> None:
    tokenizer, seen = classifier.tokenizer, []

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
