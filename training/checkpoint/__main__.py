"""`python -m training.checkpoint checkpoints/MINE --transformer RUN`."""

import sys

from training.checkpoint.assemble import main
from training.core.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
