"""Text of callers and peers, made safe to write where people and machines read it. Knows no log and no message."""

from __future__ import annotations

import json


def escaped(text: str) -> str:
    r"""The text with each character that cannot be printed as \uXXXX: control characters, which terminals obey,
    separators of lines, which log collectors split at, and marks that turn the direction of what follows."""
    return text if text.isprintable() else "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 2**16 else json.dumps(character)[1:-1]
