"""The end of a command: what it started ends first, also at a signal; an error of its user is a sentence and exit code
2. Knows no benchmark."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from model.errors import ModelError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
USAGE = 2


def run_command(main: Callable[[], int], *kinds: type[Exception]) -> int:
    """Call `main` and return the exit code. Errors of the model, of files and of these kinds become a sentence.

    Any other exception keeps its traceback.
    """
    reported: tuple[type[Exception], ...] = (ModelError, OSError, *kinds)
    try:
        return main()
    except reported as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


@contextmanager
def ended_by(end: Callable[[], object]) -> Iterator[None]:
    """Call `end` when the block is left. SIGTERM and SIGINT call it too and exit with 128 plus the signal's number:
    inside gRPC's blocking calls, KeyboardInterrupt may wait for ever (docs/log.md)."""
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def leave(number: int, frame: FrameType | None) -> None:
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        end()
        outer = before[signal.Signals(number)]
        if callable(outer) and outer is not signal.default_int_handler:
            outer(number, frame)  # of a block around this one
        os._exit(128 + number)

    for number in SIGNALS:
        signal.signal(number, leave)
    try:
        yield
    finally:
        end()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder. When the block is left it is removed, and every child of this process is killed."""
    import psutil  # imported here: machines with a GPU import this module and may not have it

    folder = tempfile.TemporaryDirectory()

    def end() -> None:
        children = psutil.Process().children(recursive=True)
        for child in children:
            child.kill()
        psutil.wait_procs(children, timeout=5)
        folder.cleanup()

    with ended_by(end):
        yield Path(folder.name)
