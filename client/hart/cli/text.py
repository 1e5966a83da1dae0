"""Text for the terminal. Knows no screen."""

from __future__ import annotations

import rich.markup

from hart.printable import escaped


def shown(text: str) -> str:
    """The text as it is to be read: no markup of rich's, and nothing that a terminal would obey."""
    return rich.markup.escape(escaped(text))
