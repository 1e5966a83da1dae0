"""The processes of a plan that run on this machine, found by their environment, and how to end them."""

from __future__ import annotations

from contextlib import suppress

import psutil

from cluster import record
from cluster.plan import Plan

GRACE_SECONDS = 30
"""The time in which running work may finish; then a process is killed."""
MARK = "CLUSTER_FOLDER"
"""The variable that names a process's cluster. It outlives lost files and killed managers."""


def manager(plan: Plan) -> psutil.Process | None:
    """The process manager, found without its record too. A process id that another program has now does not count."""
    return _recorded_manager(plan) or next((process for process in marked(plan) if is_manager(process)), None)


def marked(plan: Plan) -> list[psutil.Process]:
    """All processes of the plan, whatever their parent is now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(plan.folder):
                found.append(process)
        except psutil.Error:
            pass  # another user's, or one that has just ended
    return found


def is_manager(process: psutil.Process) -> bool:
    """Whether the process runs `python -m cluster serve`."""
    with suppress(psutil.Error):
        words = process.cmdline()
        return words[-1:] == ["serve"] and "cluster" in words and alive(process)
    return False


def alive(process: psutil.Process) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def port_of(manager: psutil.Process) -> int:
    """The gateway's port, from the manager's command line."""
    return next(int(word.removeprefix("--port=")) for word in manager.cmdline() if word.startswith("--port="))


def children(manager: psutil.Process) -> list[tuple[int, int]]:
    """Process id and HART_PORT of each child of the manager."""
    found = []
    try:
        for child in manager.children():
            found.append((child.pid, int(child.environ().get("HART_PORT", 0))))
    except psutil.Error:
        pass  # one ended meanwhile; the next call finds its successor
    return found


def end(signalled: list[psutil.Process], awaited: list[psutil.Process]) -> None:
    """Send SIGTERM to some processes, wait for others, and kill those that outlast the grace."""
    for process in signalled:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(awaited, timeout=GRACE_SECONDS + 10)
    for process in left:
        with suppress(psutil.NoSuchProcess):  # it may end by itself at this moment
            process.kill()
    psutil.wait_procs(left, timeout=5)


def _recorded_manager(plan: Plan) -> psutil.Process | None:
    facts = record.read(plan)
    try:
        process = psutil.Process(facts["pid"])
        return process if process.create_time() == facts["created"] and alive(process) else None
    except (KeyError, psutil.Error):
        return None
