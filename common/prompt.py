"""What counts as a prompt: one rule for the wire, the stages and the pipeline in one process."""

from __future__ import annotations

import unicodedata

from common.limits import MAX_PROMPT_CHARACTERS

UNSEEN = "\ufeff\u200b\u2060"
"""What editors and web pages leave around a text besides white space: byte-order marks, zero-width spaces."""
BLANK = frozenset("\u2800\u3164\u115f\u1160\uffa0")
"""Letters and symbols by their Unicode category that show nothing."""


def trimmed(text: str) -> str:
    """The text without invisible characters around it."""
    while (shorter := text.strip().strip(UNSEEN)) != text:
        text = shorter
    return text


def has_visible(text: str) -> bool:
    """Whether a character of the text is visible: a mark, a control or a space alone is not."""
    return any(unicodedata.category(one)[0] not in "CZM" and one not in BLANK for one in text)


def prompt_characters(text: str) -> int:
    """The length that a prompt is held to: its code points, or those of its NFKC form where they are more.

    Tokenizers normalise, and one code point may stand for eighteen: 2,000 of those would occupy a replica for many
    seconds. A text that is too long already is not normalised, since that takes quadratic time in its combining marks.
    """
    return len(text) if len(text) > MAX_PROMPT_CHARACTERS else max(len(text), len(unicodedata.normalize("NFKC", text)))


def checked_prompt(text: str) -> str:
    """The trimmed prompt. Raises ValueError where it is empty, too long or invisible; the message counts the characters
    that were given."""
    prompt = trimmed(text)
    given, counted = len(prompt), prompt_characters(prompt)
    if counted > MAX_PROMPT_CHARACTERS and given <= MAX_PROMPT_CHARACTERS:
        raise ValueError(
            f"its {given} characters stand for {counted} (in NFKC); at most {MAX_PROMPT_CHARACTERS} may be read"
        )
    if not 1 <= counted <= MAX_PROMPT_CHARACTERS:
        raise ValueError(f"must have 1 to {MAX_PROMPT_CHARACTERS} characters after trimming, not {given}")
    if not has_visible(prompt):
        raise ValueError(f"must have a visible character, not {prompt[:40]!a}")
    return prompt
