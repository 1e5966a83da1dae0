"""`python -m training.transformer --images FOLDER`."""

import sys

from training.core.cli import run_command
from training.transformer.command import main

if __name__ == "__main__":
    sys.exit(run_command(main))
