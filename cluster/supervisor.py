"""Keeps a plan's processes running: circus restarts what dies. Knows how to start, await and stop it all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from cluster.gateway_metrics import gateway_metrics
from cluster.plan import ROOT, TLS, Plan, Process
from common.stages import START_SECONDS

"""Four imports of torch side by side on two busy cores."""
REACH_SECONDS = 15.0
"""For the gateway to reach what runs elsewhere."""
GRACE_SECONDS = 30
"""Running work may finish; then the process is killed."""
NOT_OF_PROCESSES = ("HART_ENDPOINT", "HART_API_KEY", "HART_PORT")
"""What the command `hart` reads, and what the plan holds by itself."""
MARK = "CLUSTER_FOLDER"
"""The variable by which a plan's manager and processes are known, whatever was lost on disk or killed."""
_UNKNOWN = re.compile(r'"unknown setting (\w+)(?:: did you mean (\w+)\?)?"')
"""What a process logs at its start."""
FORK_ORDER = [f"services.{stage}" for stage in ("ar_generator", "decoder", "text_encoder", "safety")]
"""The last two import transformers, while the first two load their weights."""
HERE = Path(__file__).resolve().parent
MAX_STARTS = 3
"""A process that was started more often before it was ready will not get better."""
_STATES = {True: "ready", False: "not ready", None: "not known"}


class ClusterError(Exception):
    """The cluster did not come up; says which process, and shows the end of its log."""


def serve(plan: Plan) -> None:
    """Run the process manager until SIGTERM or SIGINT; both end every process within the grace."""
    from circus import get_arbiter

    logs = _folder(plan) / "logs"
    # Paths of unix sockets are short: circus talks over names relative to the folder.
    os.chdir(plan.folder)
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
    if process.module != "gateway":
        command = [sys.executable, "-I", "-S", str(HERE / "forked.py"), str(plan.folder), process.module]
    return _watched(process.name, command, plan, logs, process.settings)


def _fork_server(plan: Plan, logs: Path) -> list[dict[str, Any]]:
    """The first watcher, if stages run here: they are forked from it. It ends after them, by itself."""
    modules = sorted({process.module for process in plan.processes[:-1]}, key=FORK_ORDER.index)
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


def up(plan: Plan, keep: bool = True) -> None:
    """Start the plan and return when every process is ready. One that runs as planned is left alone.

    `keep` is remembered for `kept`: whether the cluster is meant to outlive those who use it.
    """
    with _starting(plan):
        _up(plan)
        if keep or "kept" not in _recorded(plan):
            _record(plan, {"kept": keep})
        _await_named(plan)
        print(f"ready at {plan.endpoint}", flush=True)


def await_start(plan: Plan) -> None:
    """Return when no `up` is under way."""
    with _starting(plan):
        pass


@contextmanager
def _starting(plan: Plan) -> Iterator[None]:
    with (_folder(plan) / "starting").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two at once would take each other's ports
        yield


def kept(plan: Plan) -> bool:
    """Whether what runs was meant to stay."""
    return bool(_recorded(plan).get("kept", True))


def as_planned(plan: Plan) -> bool:
    """Whether what runs was started with the plan's settings."""
    return _manager(plan) is not None and _recorded(plan).get("plan") == _fingerprint(plan)


def _up(plan: Plan) -> None:
    manager = _manager(plan)
    port = plan.port if manager is None else _port_of(manager)
    if port != plan.port:
        raise ClusterError(
            f"the cluster of {_shown(plan.folder)} runs at port {port}, not {plan.port}: `python -m cluster down` ends "
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
    running = _manager(plan)
    fresh = running is None
    if running is None:
        if _orphans(plan):
            print("stopping what a killed process manager left behind", flush=True)
            down(plan)
        taken = next((process for process in plan.processes if process.port_taken()), None)
        if taken is not None:
            raise ClusterError(
                f"port {taken.port}, which {taken.name} needs, is taken by another program; HART_PORT moves them all"
            )
        print(f"starting {len(plan.processes)} processes; logs in {_shown(plan.folder / 'logs')}", flush=True)
        running = _start(plan)
    try:
        _await_ready(plan, running)
    except BaseException:
        down(plan)
        raise
    for name, nearest in _strangers(plan).items() if fresh else ():
        print(f"{name} is no setting of any process{f': did you mean {nearest}?' if nearest else ''}", flush=True)


def _await_named(plan: Plan) -> None:
    """Return when the gateway reaches the stages that the operator has named; ClusterError names one that it cannot."""
    deadline = time.monotonic() + REACH_SECONDS
    for stage, listed in plan.named.items():
        while gateway_metrics(plan, stage) is False:
            if time.monotonic() > deadline:
                rest = "; the rest runs on" if kept(plan) else ""
                raise ClusterError(f"not ready: the gateway reaches no {stage} at HART_{stage.upper()}={listed}{rest}")
            time.sleep(0.2)


def _start(plan: Plan) -> psutil.Process:
    folder = _folder(plan)
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
        _record_start(plan, process)
    except BaseException:  # a full disk, or Ctrl-C: nothing may run that is not written down
        _end([process], [process, *process.children(recursive=True)])
        down(plan)
        raise
    return process


def _record_start(plan: Plan, process: psutil.Process) -> None:
    (plan.folder / "cluster.json").unlink(missing_ok=True)
    facts = {
        "pid": process.pid,
        "created": process.create_time(),
        "plan": _fingerprint(plan),
        "port": plan.port,
        "replicas": dict(plan.replicas),
        "tls": plan.environment.get(TLS, ""),
        "named": plan.named,
    }
    _record(plan, facts)


def _await_ready(plan: Plan, manager: psutil.Process) -> None:
    waiting = {process.name: process for process in plan.processes}
    starts: dict[str, set[int]] = {name: set() for name in waiting}
    deadline = time.monotonic() + START_SECONDS
    while waiting:
        for name, process in list(waiting.items()):
            if process.ready():
                del waiting[name]
        if not _alive(manager):
            raise ClusterError(f"the process manager ended:\n{_tail(plan, 'manager')}{_tail(plan, 'circus')}")
        for child in _children(manager):
            for name, process in waiting.items():
                if child[1] == process.port:
                    starts[name].add(child[0])
        failing = next((name for name in waiting if len(starts[name]) > MAX_STARTS), None)
        if failing is not None:
            raise ClusterError(f"{failing} ends as soon as it is started; its log:\n{_tail(plan, failing)}")
        if time.monotonic() > deadline:
            late = next(iter(waiting))
            raise ClusterError(f"{late} is not ready after {START_SECONDS:.0f} s; its log:\n{_tail(plan, late)}")
        if waiting:
            time.sleep(0.2)


def _strangers(plan: Plan) -> dict[str, str]:
    """What every process calls unknown, with the nearest right name or "": a setting of one is no stranger."""
    told = [dict(_UNKNOWN.findall(_log(plan, process.name))) for process in plan.processes]
    nearest = {name: right for one in told for name, right in one.items() if right}
    return {name: nearest.get(name, "") for name in sorted(set.intersection(*map(set, told)))}


def _children(manager: psutil.Process) -> list[tuple[int, int]]:
    """Process id and HART_PORT of what the manager has started."""
    found = []
    try:
        for child in manager.children():
            found.append((child.pid, int(child.environ().get("HART_PORT", 0))))
    except psutil.Error:
        pass  # One that ended while we looked; the next round sees its successor.
    return found


def down(plan: Plan) -> bool:
    """Stop everything; False where nothing ran."""
    manager = _manager(plan)
    family = [] if manager is None else [manager, *manager.children(recursive=True)]
    if manager is not None:
        _end([manager], family)
    orphans = _orphans(plan)  # one that its manager was just starting again may be left of those too
    _end(orphans, orphans)
    (plan.folder / "cluster.json").unlink(missing_ok=True)
    return bool(family or orphans)


def _end(told: list[psutil.Process], awaited: list[psutil.Process]) -> None:
    """Tell some to end, and kill those that have not within the grace."""
    for process in told:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(awaited, timeout=GRACE_SECONDS + 10)
    for process in left:
        with suppress(psutil.NoSuchProcess):  # it may end by itself at this moment
            process.kill()
    psutil.wait_procs(left, timeout=5)


def _orphans(plan: Plan) -> list[psutil.Process]:
    """This plan's processes, whoever is their parent now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(plan.folder):
                found.append(process)
        except psutil.Error:
            pass  # Another user's, or one that has just ended.
    return found


def show(plan: Plan) -> None:
    """Print each process, its port, and whether it is ready; and the stages that the operator has named."""
    manager = _manager(plan)
    left = [] if manager else _orphans(plan)
    if not manager and not left and not plan.answers():
        print("nothing runs; `make up` starts it")
        return
    record = _recorded(plan)
    replicas = {**plan.replicas, **record.get("replicas", {})}
    environment = {TLS: record.get("tls", plan.environment.get(TLS, ""))}
    environment |= {f"HART_{stage.upper()}": listed for stage, listed in record.get("named", plan.named).items()}
    port = _port_of(manager) if manager else record.get("port", plan.port)
    running = replace(plan, port=port, replicas=replicas, environment=environment)
    for process in running.processes:
        print(f"{process.name:<16} 127.0.0.1:{process.port}  {_STATES[process.ready()]}")
    for stage, listed in running.named.items():
        print(f"{stage:<16} {listed}  {_STATES[gateway_metrics(running, stage)]}")
    if left:
        print("the process manager is gone: what ends is not started again; `make up` starts all of it anew")


def _manager(plan: Plan) -> psutil.Process | None:
    """The running process manager, also where its record is lost; a process id that now belongs to another program is
    not it."""
    return _recorded_manager(plan) or next((one for one in _orphans(plan) if _serves(one)), None)


def _serves(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        words = process.cmdline()
        return words[-1:] == ["serve"] and "cluster" in words and _alive(process)
    return False


def _port_of(manager: psutil.Process) -> int:
    """The gateway's port, as the manager was told."""
    return next(int(word.removeprefix("--port=")) for word in manager.cmdline() if word.startswith("--port="))


def _recorded_manager(plan: Plan) -> psutil.Process | None:
    record = _recorded(plan)
    try:
        process = psutil.Process(record["pid"])
        return process if process.create_time() == record["created"] and _alive(process) else None
    except (KeyError, psutil.Error):
        return None


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _recorded(plan: Plan) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((plan.folder / "cluster.json").read_text())
    except (OSError, ValueError):
        return {}
    return record


def _record(plan: Plan, facts: dict[str, Any]) -> None:
    """Adds to what is written down about the running cluster."""
    (plan.folder / "cluster.json").write_text(json.dumps(_recorded(plan) | facts))


def _fingerprint(plan: Plan) -> str:
    """What makes two plans the same to their processes; hashed, for settings hold secrets."""
    settings = {name: value for name, value in plan.environment.items() if name.startswith(("HART_", "OMP_", "OTEL_"))}
    for name in NOT_OF_PROCESSES:
        settings.pop(name, None)
    text = json.dumps([plan.port, str(plan.root), dict(plan.replicas), settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _folder(plan: Plan) -> Path:
    (plan.folder / "logs").mkdir(parents=True, exist_ok=True)
    return plan.folder


def _log(plan: Plan, name: str) -> str:
    try:
        return (plan.folder / "logs" / f"{name}.log").read_text("utf-8", "replace")
    except OSError:
        return "(no log)"


def _tail(plan: Plan, name: str, lines: int = 20) -> str:
    told = _log(plan, name).splitlines()
    # What is as usual says nothing about a failure, and the list of all settings would hide the one that is wrong.
    unusual = [line for line in told if '"level": "info"' not in line]
    return "\n".join((list(dict.fromkeys(unusual)) or told)[-lines:]) + "\n"


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
