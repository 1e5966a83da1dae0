"""How a command of training ends: a sentence and code 2 for what its user can mend, 130 when interrupted."""

import sys
from collections.abc import Callable

from model.errors import ModelError
from training.packages import PackageError

USAGE, INTERRUPTED = 2, 130


def run_command(main: Callable[[], None]) -> int:
    """Calls `main` and returns the exit code. What is no fault of the arguments or of files keeps its traceback."""
    try:
        main()
    except (ModelError, PackageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("interrupted; what saves its state goes on from there when called again", file=sys.stderr)
        return INTERRUPTED
    return 0
