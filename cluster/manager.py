"""The process manager: circus starts a plan's processes and restarts those that end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cluster.plan import Plan, Process
from cluster.record import NOT_OF_PROCESSES, prepare_folder
from cluster.running import GRACE_SECONDS, MARK


def serve(plan: Plan) -> None:
    """Run the process manager until SIGTERM or SIGINT; both end every process within the grace."""
    from circus import get_arbiter

    logs = prepare_folder(plan) / "logs"
    os.chdir(plan.folder)  # a unix socket's path must be short: circus gets names relative to the folder
    arbiter = get_arbiter(
        [_watcher(process, plan, logs) for process in plan.processes],
        controller="ipc://circus.sock",
        pubsub_endpoint="ipc://circus-events.sock",
        check_delay=1.0,
        loglevel="INFO",
        logoutput=str(logs / "circus.log"),
    )
    arbiter.start()


def _watcher(process: Process, plan: Plan, logs: Path) -> dict[str, Any]:
    log = {"class": "FileStream", "filename": str(logs / f"{process.name}.log"), "max_bytes": 50 << 20}
    inherited = {name: value for name, value in plan.environment.items() if name not in NOT_OF_PROCESSES}
    return {
        "name": process.name,
        "cmd": process.command[0],
        "args": process.command[1:],
        "working_dir": str(plan.root),
        "env": {**inherited, **process.settings, MARK: str(plan.folder)},
        "stdout_stream": {**log, "backup_count": 1},
        "stderr_stream": {**log, "backup_count": 1},
        "graceful_timeout": GRACE_SECONDS,
        "max_retry": -1,
        "stop_children": True,
    }
