"""The command `hart` as a subprocess's arguments."""

import sys

COMMAND = [sys.executable, "-m", "hart"]
