"""Exit codes of training's commands: 2 and one sentence for what the user can mend, 130 when interrupted."""

import sys
from collections.abc import Callable

from model.errors import ModelError

USAGE, INTERRUPTED = 2, 130


def run_command(main: Callable[[], None]) -> int:
    """Calls `main` and returns the exit code. Errors that neither arguments nor files cause keep their traceback."""
    try:
        main()
    except (ModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last saved state", file=sys.stderr)
        return INTERRUPTED
    return 0
