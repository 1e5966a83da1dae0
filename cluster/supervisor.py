"""Starts a plan's processes, waits until they are ready, and stops them."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from cluster import logs, record, running
from cluster.gateway_metrics import gateway_metrics
from cluster.plan import ROOT, Plan
from cluster.record import prepare_folder, shown
from cluster.running import MARK
from common.stages import START_SECONDS

REACH_SECONDS = 15.0
"""The time in which the gateway must reach the stages that run elsewhere."""
MAX_STARTS = 3
"""A process that was started more often before it was ready will not get better."""


class ClusterError(Exception):
    """The cluster did not come up; names the process, with the end of its log."""


def up(plan: Plan, keep: bool = True) -> None:
    """Start the plan and return when every process is ready. A cluster that runs as planned is left alone.

    `keep` is recorded: whether the cluster outlives its sessions.
    """
    with _starting(plan):
        _up(plan)
        if keep or "kept" not in record.read(plan):
            record.add(plan, kept=keep)
        _await_named(plan)
        print(f"ready at {plan.endpoint} (gRPC), {plan.http_url} (HTTP)", flush=True)


def down(plan: Plan) -> bool:
    """Stop everything; False where nothing ran."""
    manager = running.manager(plan)
    family = [] if manager is None else [manager, *manager.children(recursive=True)]
    if manager is not None:
        running.end([manager], family)
    orphans = running.marked(plan)  # a child that the manager was just starting again may be left too
    running.end(orphans, orphans)
    record.remove(plan)
    return bool(family or orphans)


def await_start(plan: Plan) -> None:
    """Return when no `up` is under way."""
    with _starting(plan):
        pass


def as_planned(plan: Plan) -> bool:
    """Whether what runs was started with the plan's settings."""
    return running.manager(plan) is not None and record.read(plan).get("plan") == record.fingerprint(plan)


@contextmanager
def _starting(plan: Plan) -> Iterator[None]:
    with (prepare_folder(plan) / "starting").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two at once would take each other's ports
        yield


def _up(plan: Plan) -> None:
    manager = running.manager(plan)
    port = plan.port if manager is None else running.port_of(manager)
    if port != plan.port:
        raise ClusterError(
            f"the cluster of {shown(plan.folder)} runs at port {port}, not {plan.port}: `python -m cluster down` ends "
            "it, or --folder gives a second cluster a folder of its own"
        )
    if manager is None or as_planned(plan):
        _start_and_await(plan)
        return
    print("the settings have changed: starting again", flush=True)
    down(plan)
    try:
        _start_and_await(plan)
    except ClusterError as error:
        raise ClusterError(f"{error}\nthe cluster that ran was stopped for these settings; now nothing runs") from None


def _start_and_await(plan: Plan) -> None:
    manager = running.manager(plan)
    fresh = manager is None
    if manager is None:
        manager = _start(plan)
    try:
        _await_ready(plan, manager)
    except BaseException:
        down(plan)
        raise
    for name, nearest in logs.unknown_settings(plan).items() if fresh else ():
        print(f"{name} is no setting of any process{f': did you mean {nearest}?' if nearest else ''}", flush=True)


def _start(plan: Plan) -> psutil.Process:
    """Start a manager on free ports; nothing of an earlier one is left."""
    if running.marked(plan):
        print("stopping what a killed process manager left behind", flush=True)
        down(plan)
    taken = next((process for process in plan.processes if process.port_taken()), None)
    if taken is not None:
        raise ClusterError(
            f"port {taken.taken_port()}, which {taken.name} needs, is taken by another program; "
            "HART_PORT moves them all"
        )
    print(f"starting {len(plan.processes)} processes; logs in {shown(plan.folder / 'logs')}", flush=True)
    return _start_manager(plan)


def _start_manager(plan: Plan) -> psutil.Process:
    folder = prepare_folder(plan)
    for log in (folder / "logs").glob("*.log*"):
        log.unlink()
    with (folder / "logs" / "manager.log").open("wb") as log_file:
        options = [f"--port={plan.port}", f"--folder={folder}", f"--root={plan.root}"]
        command = [sys.executable, "-m", "cluster", *options, "serve"]
        started = subprocess.Popen(
            command, cwd=ROOT, env={**plan.environment, MARK: str(plan.folder)}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file,
        )  # fmt: skip
    process = psutil.Process(started.pid)
    try:
        record.begin(plan, process.pid, process.create_time())
    except BaseException:  # a full disk, or Ctrl-C: an unrecorded manager may not run on
        running.end([process], [process, *process.children(recursive=True)])
        down(plan)
        raise
    return process


def _await_ready(plan: Plan, manager: psutil.Process) -> None:
    waiting = {process.name: process for process in plan.processes}
    starts: dict[str, set[int]] = {name: set() for name in waiting}
    deadline = time.monotonic() + START_SECONDS
    while waiting:
        for name, process in list(waiting.items()):
            if process.ready():
                del waiting[name]
        if not running.alive(manager):
            raise ClusterError(f"the process manager ended:\n{logs.tail(plan, 'manager')}{logs.tail(plan, 'circus')}")
        for pid, port in running.children(manager):
            for name, process in waiting.items():
                if port == process.port:
                    starts[name].add(pid)
        failing = next((name for name in waiting if len(starts[name]) > MAX_STARTS), None)
        if failing is not None:
            raise ClusterError(f"{failing} ends as soon as it is started; its log:\n{logs.tail(plan, failing)}")
        if time.monotonic() > deadline:
            late = next(iter(waiting))
            raise ClusterError(f"{late} is not ready after {START_SECONDS:.0f} s; its log:\n{logs.tail(plan, late)}")
        if waiting:
            time.sleep(0.2)


def _await_named(plan: Plan) -> None:
    """Return when the gateway reaches the stages that the operator has named; ClusterError names one that it cannot."""
    deadline = time.monotonic() + REACH_SECONDS
    for stage, listed in plan.named.items():
        while gateway_metrics(plan, stage) is False:
            if time.monotonic() > deadline:
                rest = "; the rest runs on" if record.kept(plan) else ""
                raise ClusterError(f"not ready: the gateway reaches no {stage} at HART_{stage.upper()}={listed}{rest}")
            time.sleep(0.2)
