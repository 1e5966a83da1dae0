"""A prompt from the wire, checked. Knows no tokenizer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from runtime.errors import InvalidRequest

LONGEST = 2000
"""In characters, without the white space around it."""


def characters(text: str) -> int:
    """How long the text is: its code points, or what they are written out (NFKC) where that is more, as tokenizers do.

    One code point may stand for eighteen letters, and 2,000 of those would keep a replica for many seconds. A text that
    is too long as it stands is not written out: that takes a time that grows with the square of its marks.
    """
    return len(text) if len(text) > LONGEST else max(len(text), len(unicodedata.normalize("NFKC", text)))


def checked(text: str, field: str = "prompt") -> str:
    """The prompt without the white space around it. Raises InvalidRequest when it is empty or too long."""
    text = text.strip()
    if not 1 <= characters(text) <= LONGEST:
        why = f"must have 1 to {LONGEST} characters without outer space, not {characters(text)}"
        raise InvalidRequest.field(field, why)
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
