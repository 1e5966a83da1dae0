"""Entry point of the command. Installs a quiet Ctrl-C handler before the slow imports."""

from __future__ import annotations

import io
import os
import signal
import sys

EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line. Ctrl-C exits the process at once, except during work that `hart.cli.interrupt` runs."""
    signal.signal(signal.SIGINT, _leave)
    for stream in (sys.stdout, sys.stderr):  # an ASCII console prints "\\u2588" instead of raising
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    from hart.cli.app import app

    app()


def _leave(*_: object) -> None:
    # An exception would print a traceback, or be lost inside a module's C code.
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
