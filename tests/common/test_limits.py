"""common.limits: the limits of a request, and code that cannot import them but must agree."""

import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hart.cli import grid

from common import limits
from common import prompt as prompt_rule
from demo import initial

ROOT = Path(__file__).resolve().parents[2]
LIGATURE = "\ufdfa"  # one code point that stands for eighteen
QUALITY = (f"{limits.MIN_QUALITY} to {limits.MAX_QUALITY}", f" {limits.DEFAULT_QUALITY}")
MARKS = "a" + "\u0301\u0316" * 16_000


def test_prompt_characters_count_after_nfkc_normalisation() -> None:
    assert prompt_rule.prompt_characters(LIGATURE) == 18
    assert prompt_rule.prompt_characters("e\u0301") == 2


def test_prompt_is_trimmed() -> None:
    assert prompt_rule.checked_prompt(" \n a red heart\t") == "a red heart"
    longest = "x" * limits.MAX_PROMPT_CHARACTERS
    assert prompt_rule.checked_prompt(" " * 9 + longest) == longest


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "must have 1 to 2000 characters after trimming, not 0"),
        (" \n\t ", "must have 1 to 2000 characters after trimming, not 0"),
        (" " + "x" * 2001 + " ", "must have 1 to 2000 characters after trimming, not 2001"),
        (LIGATURE * 120, "its 120 characters stand for 2160 (in NFKC); at most 2000 may be read"),
    ],
)
def test_refusal_counts_the_characters_as_typed(prompt: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        prompt_rule.checked_prompt(prompt)


def test_prompt_over_the_limit_is_not_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ordering its marks takes quadratic time: most of a second for 64 KB.
    monkeypatch.setattr(prompt_rule, "unicodedata", SimpleNamespace())
    with pytest.raises(ValueError, match="not 32001"):
        prompt_rule.checked_prompt(MARKS)


@pytest.mark.parametrize(
    ("text", "right"), [("a" * 128, True), ("a" * 129, False), ("", False), ("a b", False), ("é", False)]
)
def test_request_ids_are_visible_ascii(text: str, right: bool) -> None:
    assert limits.is_request_id(text) is right


def comment_above(file: str, line: str) -> str:
    """The comment above a line of a file, or in Python the text below it."""
    lines = (ROOT / file).read_text().splitlines()
    at = next(number for number, text in enumerate(lines) if text.strip().startswith(line))
    if file.endswith(".py"):
        return lines[at + 1]
    return " ".join(itertools.takewhile(lambda text: text.strip().startswith("//"), reversed(lines[:at])))


@pytest.mark.parametrize(
    ("file", "line", "figures"),
    [
        ("protos/hart/v1/images.proto", "string prompt =", [f"1 to {limits.MAX_PROMPT_CHARACTERS:,}"]),
        ("protos/hart/v1/images.proto", "optional double guidance", [f"0 to {limits.MAX_GUIDANCE:g}"]),
        ("protos/hart/v1/images.proto", "optional uint32 quality", [*QUALITY]),
        ("protos/hart/v1/images.proto", "optional string request_id", [f"1 to {limits.MAX_REQUEST_ID_CHARACTERS}"]),
        ("protos/hart/v1/decoder.proto", "optional uint32 quality", [*QUALITY]),
        ("protos/hart/v1/ar_generator.proto", "optional double guidance", [f"0 to {limits.MAX_GUIDANCE:g}"]),
        ("client/hart/request.py", "guidance:", [f"0 to {limits.MAX_GUIDANCE:g}"]),
        ("client/hart/request.py", "quality:", [*QUALITY]),
    ],
)
def test_documentation_of_wire_and_client_states_the_limits(file: str, line: str, figures: list[str]) -> None:
    comment = comment_above(file, line)
    assert not [figure for figure in figures if figure not in comment], comment


def test_client_grid_has_the_same_quality() -> None:
    assert grid._QUALITY == limits.DEFAULT_QUALITY  # the client's wheel is self-contained


def test_page_starts_with_these_limits_and_defaults() -> None:
    assert (initial.MAX_IMAGES, initial.MAX_GUIDANCE) == (limits.MAX_IMAGES, limits.MAX_GUIDANCE)
    shown = (initial.IMAGES, initial.GUIDANCE, initial.TOP_P, initial.SMOOTH)
    assert shown == (
        limits.DEFAULT_IMAGES,
        limits.DEFAULT_GUIDANCE,
        limits.DEFAULT_TOP_P,
        limits.DEFAULT_MORE_SMOOTH,
    )
