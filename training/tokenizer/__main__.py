"""`python -m training.tokenizer --images FOLDER`."""

import sys

from training.core.cli import run_command
from training.tokenizer.train import main

if __name__ == "__main__":
    sys.exit(run_command(main))
