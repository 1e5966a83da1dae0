"""What counts as a prompt. The cluster's stages hold to the same rules (runtime.prompt). Knows no tokenizer."""

import unicodedata

from model.errors import SettingError

MAX_PROMPT_CHARACTERS = 2000
"""In code points, or what they are written out (NFKC) where that is more, after trimming."""
UNSEEN = "\ufeff\u200b\u2060"
"""What editors and web pages leave around a text, besides white space: byte-order marks, spaces without a width."""
BLANK = frozenset("\u2800\u3164\u115f\u1160\uffa0")
"""Letters and symbols by their category, which show nothing."""


def trimmed(text: str) -> str:
    """The text without what cannot be seen around it."""
    while (shorter := text.strip().strip(UNSEEN)) != text:
        text = shorter
    return text


def has_visible(text: str) -> bool:
    """Whether a character of the text can be seen: a mark, a control or a space alone cannot."""
    return any(unicodedata.category(one)[0] not in "CZM" and one not in BLANK for one in text)


def checked_prompt(prompt: str) -> str:
    """The prompt without what cannot be seen around it. Raises SettingError if it is empty, too long or invisible."""
    if not isinstance(prompt, str):
        raise SettingError("prompt", f"{prompt!r} is no text")
    prompt = trimmed(prompt)
    length = len(prompt)
    if length <= MAX_PROMPT_CHARACTERS:  # writing out a longer one takes a time that grows with the square of its marks
        length = max(length, len(unicodedata.normalize("NFKC", prompt)))
    if not 1 <= length <= MAX_PROMPT_CHARACTERS:
        raise SettingError(
            "prompt", f"{length} characters: expected 1 to {MAX_PROMPT_CHARACTERS}, not counting outer space"
        )
    if not has_visible(prompt):
        raise SettingError("prompt", f"{prompt[:40]!a}: holds nothing that can be seen")
    return prompt
