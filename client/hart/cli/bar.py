"""A live bar on the terminal. Knows no request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from hart.cli.connection import console


@contextmanager
def bar() -> Iterator[Progress]:
    """A bar on standard error, shown on terminals only and gone when it is done."""
    screen = console()
    columns = (TextColumn("{task.description:<20}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        yield progress
