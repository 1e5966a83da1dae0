"""The command's first breath: Ctrl-C is quiet from here on, also while the rest is still being imported."""

from __future__ import annotations

import io
import os
import signal
import sys

EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line. But for the work that `hart.cli.interrupt` runs, Ctrl-C ends the process at once."""
    signal.signal(signal.SIGINT, _leave)
    for stream in (sys.stdout, sys.stderr):  # a console of ASCII shows "\\u2588" for a block, and the command goes on
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    from hart.cli.app import app

    app()


def _leave(*_: object) -> None:
    # An exception would be told with a traceback, or lost in a module's own C code.
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
