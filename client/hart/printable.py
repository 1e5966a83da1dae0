"""Escapes untrusted text for printing."""

from __future__ import annotations

import json


def escaped(text: str) -> str:
    r"""The text with non-printable characters as \uXXXX.

    These include control characters (terminals execute them), line separators (log collectors split at them) and
    bidirectional marks (they reorder the text that follows).
    """
    return text if text.isprintable() else "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 2**16 else json.dumps(character)[1:-1]
