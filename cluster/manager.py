"""The process manager: circus starts a plan's processes and restarts those that end."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.plan import Plan, Process
from cluster.record import NOT_OF_PROCESSES, prepare_folder
from cluster.running import GRACE_SECONDS, MARK

FORK_ORDER = [f"services.{stage}" for stage in ("ar_generator", "decoder", "text_encoder", "safety")]
"""The last two import transformers, while the first two load their weights."""
HERE = Path(__file__).resolve().parent


def serve(plan: Plan) -> None:
    """Run the process manager until SIGTERM or SIGINT; both end every process within the grace."""
    from circus import get_arbiter

    logs = prepare_folder(plan) / "logs"
    os.chdir(plan.folder)  # a unix socket's path must be short: circus gets names relative to the folder
    arbiter = get_arbiter(
        [*_fork_server(plan, logs), *(_watcher(process, plan, logs) for process in plan.processes)],
        controller="ipc://circus.sock",
        pubsub_endpoint="ipc://circus-events.sock",
        check_delay=1.0,
        loglevel="INFO",
        logoutput=str(logs / "circus.log"),
    )
    arbiter.start()


def _watcher(process: Process, plan: Plan, logs: Path) -> dict[str, Any]:
    command = process.command
    if process.module in FORK_ORDER:
        command = [sys.executable, "-I", "-S", str(HERE / "forked.py"), str(plan.folder), process.module]
    return _watched(process.name, command, plan, logs, process.settings)


def _fork_server(plan: Plan, logs: Path) -> list[dict[str, Any]]:
    """The first watcher, if stages run here: they are forked from it. It ends after them, by itself."""
    here = {process.module for process in plan.processes}
    modules = [module for module in FORK_ORDER if module in here]
    command = [sys.executable, "-P", str(HERE / "fork_server.py"), str(plan.folder), *modules]
    return [{**_watched("fork_server", command, plan, logs, {}), "stop_children": False}] if modules else []


def _watched(name: str, command: list[str], plan: Plan, logs: Path, settings: Mapping[str, str]) -> dict[str, Any]:
    log = {"class": "FileStream", "filename": str(logs / f"{name}.log"), "max_bytes": 50 << 20}
    inherited = {name: value for name, value in plan.environment.items() if name not in NOT_OF_PROCESSES}
    return {
        "name": name,
        "cmd": command[0],
        "args": command[1:],
        "working_dir": str(plan.root),
        "env": {**inherited, **settings, MARK: str(plan.folder)},
        "stdout_stream": {**log, "backup_count": 1},
        "stderr_stream": {**log, "backup_count": 1},
        "graceful_timeout": GRACE_SECONDS,
        "max_retry": -1,
        "stop_children": True,
    }
