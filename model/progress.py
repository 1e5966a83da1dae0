"""Progress on standard error: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from types import TracebackType
from typing import Any, Self

LINE_SECONDS = 3.0


class Progress:
    """Shows how many scales of an image are done. A context manager."""

    def __init__(self, scales: int) -> None:
        self.scales, self._shown_at = scales, time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self.scales, unit="scale")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: int) -> None:
        """Show that `done` scales are done."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._shown_at >= LINE_SECONDS:
            self._shown_at = time.monotonic()
            print(f"scale {done} of {self.scales}", file=sys.stderr, flush=True)
