"""Progress on standard error: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from hart.cli.connection import console

LINE_SECONDS = 5.0


class LineProgress(Progress):
    """Prints a task's description every few seconds, for logs and pipes."""

    _shown_at: float

    def start(self) -> None:
        super().start()
        self._shown_at = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        if time.monotonic() - self._shown_at >= LINE_SECONDS:
            self._shown_at = time.monotonic()
            task = self.tasks[task_id]
            done = "" if task.total is None else f", {task.completed:.0f} of {task.total:.0f}"
            print(f"{task.description}{done}", file=sys.stderr, flush=True)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        self.update(task_id, advance=advance)


@contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar on standard error, removed at the end; lines where that is no terminal."""
    screen = console()
    columns = (TextColumn("{task.description:<20}"), BarColumn(), TimeElapsedColumn())
    kind = Progress if screen.is_terminal else LineProgress
    with kind(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        yield progress
