"""`python -m cluster up|down|status|run -- COMMAND`: what `make up`, `make down` and `make picture` call."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from cluster import manager, status, supervisor
from cluster.plan import ROOT, Plan, PlanError
from cluster.session import session
from common.stages import GATEWAY_PORT


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    parser.add_argument(
        "--port", type=int, help=f"the gateway's; the stages follow (default: HART_PORT, else {GATEWAY_PORT})"
    )
    parser.add_argument("--folder", default=".run", help="for logs and the process id (default: .run)")
    parser.add_argument("--root", default=ROOT, type=Path, help="the checkout whose processes run (default: this one)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help in (
        ("up", "start it, and return when it is ready"),
        ("down", "stop it"),
        ("status", "what runs"),
        ("serve", "run the process manager in the foreground"),
    ):
        commands.add_parser(name, help=help)
    inside = commands.add_parser("run", help="run a command; starts the cluster for it if none runs")
    inside.add_argument("words", nargs=argparse.REMAINDER)
    chosen = parser.parse_args()
    try:
        plan = Plan.from_environment(chosen.port, ROOT / chosen.folder, chosen.root)
        code = follow(chosen.command, plan, getattr(chosen, "words", []))
        sys.stdout.flush()
        return code
    except (PlanError, supervisor.ClusterError) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader has closed; the interpreter must not flush the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # as of a full disk
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def follow(command: str, plan: Plan, words: list[str]) -> int:
    """Run one subcommand."""
    match command:
        case "up":
            supervisor.up(plan)
        case "down":
            print("stopped" if supervisor.down(plan) else "nothing was running")
        case "status":
            status.show(plan)
        case "serve":
            manager.serve(plan)
        case "run":
            return run(plan, words)
    return 0


def run(plan: Plan, words: list[str]) -> int:
    """Runs a command against the cluster. A cluster started for it ends with it, or with the last of several.

    Returns the command's exit code.
    """
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        raise PlanError("run: name a command, as in: run -- hart status")
    with session(plan):
        return subprocess.run(words, env={**plan.environment, "HART_ENDPOINT": plan.endpoint}).returncode


if __name__ == "__main__":
    sys.exit(main())
