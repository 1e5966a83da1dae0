"""`python -m planner`: simulate a cluster, plan its replicas, make a profile, validate the model."""

from __future__ import annotations

import argparse
import os
import signal
import sys

try:
    from planner.commands import arithmetic, plan, profile, simulate, validate
except ModuleNotFoundError as error:
    sys.exit(f"planner: the package {error.name} is not installed: make setup installs it")
from planner.errors import PlanError

COMMANDS = {"simulate": simulate, "plan": plan, "profile": profile, "arithmetic": arithmetic, "validate": validate}
USAGE = 2


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m planner", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        assert module.__doc__  # noqa: S101 - every command has one
        chosen = commands.add_parser(name, help=module.__doc__.splitlines()[0], description=module.__doc__)
        module.add_arguments(chosen)
    arguments = parser.parse_args(words)
    try:
        return int(COMMANDS[arguments.command].run(arguments))
    except BrokenPipeError:  # the reader has closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (PlanError, OSError) as error:
        print(f"planner: {error}", file=sys.stderr)
        return USAGE


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that started processes end too
    sys.exit(main())
