"""Numbers of the command line: a text that is none is told as it was typed. Knows no option."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import typer

N = TypeVar("N", int, float)


def number(kind: type[N], least: float | None = None, most: float | None = None) -> Callable[[str], N]:
    """A parser for typer; it raises BadParameter for what is no number, or not in the range where one is given."""

    def parse(text: str) -> N:
        try:
            value = kind(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is no {'whole ' if kind is int else ''}number") from None
        if least is not None and not value >= least:  # nor is nan
            raise typer.BadParameter(f"{text} is not {least:g} or more")
        if most is not None and not value <= most:
            raise typer.BadParameter(f"{text} is more than {most:.0f}")
        return value

    return parse
