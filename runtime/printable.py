"""Escapes text from clients and peers, so that logs, terminals and errors can show it safely."""

from __future__ import annotations

import json


def escaped(text: str) -> str:
    r"""The text with each unprintable character as \uXXXX: control characters (terminals execute them), line separators
    (log collectors split at them) and marks that change the text direction."""
    return text if text.isprintable() else "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 2**16 else json.dumps(character)[1:-1]
