"""How a shell starts the command `hart`."""

import sys

COMMAND = [sys.executable, "-m", "hart"]
