"""The bounds of a request (common.limits), and what cannot import them but must agree."""

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


def test_a_prompt_counts_as_tokenizers_normalise_it() -> None:
    assert prompt_rule.prompt_characters(LIGATURE) == 18
    assert prompt_rule.prompt_characters("e\u0301") == 2


def test_a_prompt_is_trimmed() -> None:
    assert prompt_rule.checked_prompt(" \n a red heart\t") == "a red heart"
    assert (
        prompt_rule.checked_prompt(" " * 9 + "x" * limits.MAX_PROMPT_CHARACTERS) == "x" * limits.MAX_PROMPT_CHARACTERS
    )


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "must have 1 to 2000 characters after trimming, not 0"),
        (" \n\t ", "must have 1 to 2000 characters after trimming, not 0"),
        (" " + "x" * 2001 + " ", "must have 1 to 2000 characters after trimming, not 2001"),
        (LIGATURE * 120, "its 120 characters stand for 2160 (in NFKC); at most 2000 may be read"),
    ],
)
def test_a_refusal_counts_what_the_caller_typed(prompt: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        prompt_rule.checked_prompt(prompt)


def test_a_prompt_that_is_too_long_already_is_not_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ordering its marks would take a time that grows with their square: most of a second for 64 KB.
    monkeypatch.setattr(prompt_rule, "unicodedata", SimpleNamespace())
    with pytest.raises(ValueError, match="not 32001"):
        prompt_rule.checked_prompt(MARKS)


@pytest.mark.parametrize(
    ("text", "right"), [("a" * 128, True), ("a" * 129, False), ("", False), ("a b", False), ("é", False)]
)
def test_request_ids_are_visible_ascii(text: str, right: bool) -> None:
    assert limits.is_request_id(text) is right


def comment_above(file: str, line: str) -> str:
    """The comment right above a line of a file, or the text right below it in Python."""
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
def test_the_documentation_of_wire_and_client_has_these_figures(file: str, line: str, figures: list[str]) -> None:
    said = comment_above(file, line)
    assert not [figure for figure in figures if figure not in said], said


def test_the_clients_grid_has_the_same_quality() -> None:
    assert grid._QUALITY == limits.DEFAULT_QUALITY  # its wheel stands alone: it cannot import the limits


def test_the_page_shows_these_until_the_cluster_is_described() -> None:
    assert (initial.MAX_IMAGES, initial.MAX_GUIDANCE) == (limits.MAX_IMAGES, limits.MAX_GUIDANCE)
    shown = (initial.IMAGES, initial.GUIDANCE, initial.TOP_P, initial.SMOOTH)
    assert shown == (
        limits.DEFAULT_IMAGES,
        limits.DEFAULT_GUIDANCE,
        limits.DEFAULT_TOP_P,
        limits.DEFAULT_MORE_SMOOTH,
    )
