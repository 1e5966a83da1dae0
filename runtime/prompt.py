"""A prompt from the wire, checked. Knows no tokenizer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from runtime.errors import InvalidRequest

LONGEST = 2000
"""In characters, without the white space around it."""

UNSEEN = "\ufeff\u200b\u2060"
"""What editors and web pages leave around a text, besides white space: byte-order marks, spaces without a width."""
BLANK = frozenset("\u2800\u3164\u115f\u1160\uffa0")
"""Letters and symbols by their category, which show nothing."""


def characters(text: str) -> int:
    """How long the text is: its code points, or what they are written out (NFKC) where that is more, as tokenizers do.

    One code point may stand for eighteen letters, and 2,000 of those would keep a replica for many seconds. A text that
    is too long as it stands is not written out: that takes a time that grows with the square of its marks.
    """
    return len(text) if len(text) > LONGEST else max(len(text), len(unicodedata.normalize("NFKC", text)))


def trimmed(text: str) -> str:
    """The text without what cannot be seen around it."""
    while (shorter := text.strip().strip(UNSEEN)) != text:
        text = shorter
    return text


def has_visible(text: str) -> bool:
    """Whether a character of the text can be seen: a mark, a control or a space alone cannot."""
    return any(unicodedata.category(one)[0] not in "CZM" and one not in BLANK for one in text)


def checked(text: str, field: str = "prompt") -> str:
    """The prompt without what cannot be seen around it. Raises InvalidRequest when it is empty, too long or
    invisible."""
    text = trimmed(text)
    if not 1 <= characters(text) <= LONGEST:
        why = f"must have 1 to {LONGEST} characters without outer space, not {characters(text)}"
        raise InvalidRequest.field(field, why)
    if not has_visible(text):
        raise InvalidRequest.field(field, f"must hold something that can be seen, not {text[:40]!a}")
    return text


def decoded(items: Iterable[bytes], field: str, limit: int) -> list[str]:
    """Prompts of a BYTES tensor, checked. Raises InvalidRequest for more than `limit` or for one that is not UTF-8."""
    given = list(items)
    if len(given) > limit:
        raise InvalidRequest.field(field, f"must hold at most {limit} prompts, not {len(given)}")
    prompts = []
    for number, item in enumerate(given):
        try:
            prompts.append(checked(item.decode(), f"{field}[{number}]"))
        except UnicodeDecodeError:
            raise InvalidRequest.field(f"{field}[{number}]", "must be UTF-8") from None
    return prompts
