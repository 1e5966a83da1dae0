"""Escapes text for the terminal."""

from __future__ import annotations

import rich.markup

from hart.printable import escaped


def shown(text: str) -> str:
    """The text with rich markup and control characters escaped."""
    return rich.markup.escape(escaped(text))
