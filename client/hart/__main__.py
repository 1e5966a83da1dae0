"""The command's first breath: an interrupt is quiet from here on, also while the rest is still being imported."""

from __future__ import annotations

import os
import signal
import sys

EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line. While there is nothing to undo, Ctrl-C ends the process at once."""
    signal.signal(signal.SIGINT, _leave)
    from hart.cli.app import app

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, _leave)


def _leave(*_: object) -> None:
    # An exception would be told with a traceback, or lost in a module's own C code.
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
