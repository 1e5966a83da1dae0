"""Parses numbers of the command line. Errors quote the text as typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import typer

N = TypeVar("N", int, float)


def number(kind: type[N], minimum: float | None = None, maximum: float | None = None) -> Callable[[str], N]:
    """A parser for typer. It raises BadParameter for text that is not a number, or out of range."""

    def parse(text: str) -> N:
        try:
            value = kind(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not {'an integer' if kind is int else 'a number'}") from None
        if minimum is not None and not value >= minimum:  # also true for nan
            raise typer.BadParameter(f"{text} is not {minimum:g} or more")
        if maximum is not None and not value <= maximum:
            raise typer.BadParameter(f"{text} is more than {maximum:.0f}")
        return value

    return parse
