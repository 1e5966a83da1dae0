"""cluster.supervisor and its neighbours: the local cluster with real processes that serve only health."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cluster import record, running, status, supervisor
from cluster.plan import ROOT, Plan, PlanError
from cluster.session import session
from common import cpus
from common.stages import STAGES

PROGRAM = """
import http.server, os, signal, sys, threading
from concurrent import futures
from pathlib import Path
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

if os.environ.get("HART_BROKEN") == __spec__.name:
    print('{"level": "info", "message": "settings"}', file=sys.stderr)
    sys.exit("this stage cannot start")
known = {"HART_SLOTS"} if __spec__.name == "services.ar_generator" else set()
for name in sorted({"HART_SLOTS", "HART_SLOTSS", "HART_ENDPOINT"} & set(os.environ) - known):
    hint = ": did you mean HART_SLOTS?" if known else ""
    print('{"level": "warning", "message": "unknown setting %s%s"}' % (name, hint), file=sys.stderr, flush=True)
servicer = health.HealthServicer()
for name in ("Safety", "TextEncoder", "ArGenerator", "Decoder", "Images"):
    servicer.set("hart.v1." + name, health_pb2.HealthCheckResponse.SERVING)
server = grpc.server(futures.ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
port = int(os.environ["HART_PORT"]) + (2000 if os.environ.get("HART_TLS_CERT") else 0)
server.add_insecure_port(f"127.0.0.1:{port}")
class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(Path(os.environ["HART_TEST_METRICS"]).read_bytes())
if __spec__.name == "gateway" and "HART_TEST_METRICS" in os.environ:
    metrics = http.server.HTTPServer(("127.0.0.1", int(os.environ["HART_PORT"]) + 1000), Metrics)
    threading.Thread(target=metrics.serve_forever, daemon=True).start()
server.start()
print("stages", os.environ.get("HART_AR_GENERATOR"), flush=True)
done = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: done.set())
done.wait()
server.stop(1).wait()
"""


def free_range(count: int) -> int:
    """The first of `count` consecutive free ports."""
    for first in range(23000 + os.getpid() % 5000, 32000, count):
        for port in range(first, first + count):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        else:
            return first
    raise AssertionError("no free ports")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout of small programs."""
    (tmp_path / "services").mkdir()
    for stage in STAGES:
        (tmp_path / "services" / f"{stage}.py").write_text(PROGRAM)
    (tmp_path / "gateway.py").write_text(PROGRAM)
    return tmp_path


@pytest.fixture
def plan(root: Path) -> Iterator[Plan]:
    """A plan on free ports, stopped at the end."""
    environment = {**os.environ, "REPLICAS_AR_GENERATOR": "2"}
    chosen = Plan.from_environment(free_range(16), root / ".run", root, environment)
    yield chosen
    supervisor.down(chosen)


def pid_of(plan: Plan, name: str) -> int:
    """The id of the manager's process with this name, or 0."""
    port = next(process.port for process in plan.processes if process.name == name)
    manager = running.manager(plan)
    assert manager is not None
    return next((pid for pid, found in running.children(manager) if found == port), 0)


def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.05)


def test_up_waits_until_ready_restarts_processes_and_down_stops_all(plan: Plan) -> None:
    supervisor.up(plan)
    assert len(plan.processes) == 6
    wait(lambda: all(process.ready() for process in plan.processes))
    log = plan.folder / "logs" / "gateway.log"
    wait(lambda: log.read_text().endswith("\n"))  # the manager copies it from a pipe
    assert log.read_text().strip() == f"stages 127.0.0.1:{plan.port + 3},127.0.0.1:{plan.port + 13}"

    generator = next(process for process in plan.processes if process.name == "ar_generator-2")
    first = pid_of(plan, generator.name)
    os.kill(first, 9)
    wait(lambda: not psutil.pid_exists(first))
    wait(generator.ready)
    assert pid_of(plan, generator.name) != first

    family = psutil.Process(record.read(plan)["pid"]).children(recursive=True)
    supervisor.up(plan)  # a second call starts nothing
    assert {one.pid for one in family} <= {one.pid for one in psutil.process_iter()}
    assert supervisor.down(plan)
    assert not supervisor.down(plan)
    assert not any(one.is_running() for one in family)
    assert not any(process.port_taken() for process in plan.processes)


def test_up_with_other_settings_restarts_the_cluster(plan: Plan, root: Path) -> None:
    supervisor.up(plan)
    gateway = pid_of(plan, "gateway")
    other = Plan.from_environment(plan.port, plan.folder, root, {**os.environ, "HART_LOG_LEVEL": "DEBUG"})
    supervisor.up(other)
    assert pid_of(other, "gateway") != gateway
    assert not plan.processes[3].port_taken()  # the second generator is gone


def test_status_uses_the_settings_of_the_running_cluster(
    plan: Plan, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {**plan.environment, "HART_TLS_CERT": "a.pem", "REPLICAS_AR_GENERATOR": "1"}
    supervisor.up(Plan.from_environment(plan.port, plan.folder, root, environment))
    capsys.readouterr()
    status.show(plan)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(line.endswith("  ready") for line in lines)


def test_closed_stdout_pipe_shows_no_traceback(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "cluster", "--folder", str(tmp_path), "--port", str(free_range(9)), "status"]
    with os.fdopen(theirs, "w") as closed:
        found = subprocess.run(command, cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (found.returncode, found.stderr) == (1, "")


def test_unknown_setting_is_reported(plan: Plan, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {**plan.environment, "HART_SLOTS": "3", "HART_SLOTSS": "3", "HART_ENDPOINT": "127.0.0.1:1"}
    supervisor.up(Plan.from_environment(plan.port, plan.folder, root, environment))
    warnings = [line for line in capsys.readouterr().out.splitlines() if "no setting" in line]
    assert warnings == ["HART_SLOTSS is no setting of any process: did you mean HART_SLOTS?"]


def test_failed_process_is_named_with_its_log_and_all_is_stopped(plan: Plan, root: Path) -> None:
    environment = {**plan.environment, "HART_BROKEN": "services.decoder"}
    broken = Plan.from_environment(plan.port, plan.folder, root, environment)
    with pytest.raises(supervisor.ClusterError) as caught:
        supervisor.up(broken)
    assert str(caught.value) == "decoder-1 ends as soon as it is started; its log:\nthis stage cannot start\n"
    assert not any(process.port_taken() for process in broken.processes)


def test_failed_restart_reports_that_the_old_cluster_was_stopped(plan: Plan, root: Path) -> None:
    supervisor.up(plan)
    environment = {**plan.environment, "HART_BROKEN": "services.decoder"}
    with pytest.raises(supervisor.ClusterError) as caught:
        supervisor.up(Plan.from_environment(plan.port, plan.folder, root, environment))
    assert "decoder-1 ends as soon as it is started" in str(caught.value)
    assert str(caught.value).endswith("the cluster that ran was stopped for these settings; now nothing runs")
    assert not plan.answers()


@pytest.mark.parametrize("again", [supervisor.down, supervisor.up])
def test_orphans_of_a_killed_manager_are_stopped(plan: Plan, again: Callable[[Plan], object]) -> None:
    supervisor.up(plan)
    manager = psutil.Process(record.read(plan)["pid"])
    family = manager.children()
    assert len(family) == 7  # the fork server, the stages and the gateway
    manager.kill()
    manager.wait()
    again(plan)
    assert not any(one.is_running() for one in family)
    if again is supervisor.up:
        wait(plan.answers)
    else:
        assert not plan.answers()


def test_down_stops_processes_that_are_still_starting(plan: Plan) -> None:
    supervisor.up(plan)
    late = subprocess.Popen(["sleep", "600"], env={**os.environ, running.MARK: str(plan.folder)})
    try:
        supervisor.down(plan)
        assert not psutil.pid_exists(late.pid)
    finally:
        late.kill()
        late.wait()


@pytest.fixture
def external_decoder(plan: Plan, root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Plan]:
    """Makes plans with an external decoder, of which the gateway reports `ready` replicas; `up` does not wait."""
    monkeypatch.setattr(supervisor, "REACH_SECONDS", 0.0)
    environment = {**os.environ, "HART_DECODER": "127.0.0.1:1", "HART_TEST_METRICS": str(root / "metrics")}

    def build(ready: int) -> Plan:
        (root / "metrics").write_text(f'# HELP\nhart_replicas{{stage="decoder",state="ready"}} {ready}.0\n')
        return Plan.from_environment(plan.port, plan.folder, root, environment)

    return build


def test_up_fails_if_the_gateway_cannot_reach_an_external_stage(
    external_decoder: Callable[[int], Plan], plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(supervisor.ClusterError) as caught:
        supervisor.up(external_decoder(0))
    missing = "not ready: the gateway reaches no decoder at HART_DECODER=127.0.0.1:1; the rest runs on"
    assert str(caught.value) == missing
    assert "ready at" not in capsys.readouterr().out
    assert plan.answers()
    status.show(plan)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["safety-1", "text_encoder-1", "ar_generator-1", "gateway", "decoder"]
    assert lines[-1].split(maxsplit=2)[1:] == ["127.0.0.1:1", "not ready"]

    supervisor.up(external_decoder(1))
    assert "ready at" in capsys.readouterr().out
    status.show(plan)
    assert all(line.endswith("  ready") for line in capsys.readouterr().out.splitlines())


def test_session_without_its_external_stage_leaves_nothing_running(
    external_decoder: Callable[[int], Plan], plan: Plan
) -> None:
    with pytest.raises(supervisor.ClusterError, match=r"=127\.0\.0\.1:1$"), session(external_decoder(0)):
        raise AssertionError("the session began")
    assert not plan.answers()


def test_port_in_use_is_named_before_anything_starts(plan: Plan) -> None:
    with socket.socket() as other_program:
        other_program.bind(("127.0.0.1", plan.port + 4))
        other_program.listen()
        with pytest.raises(supervisor.ClusterError, match=rf"port {plan.port + 4}, which decoder-1 needs"):
            supervisor.up(plan)


def test_command_gets_a_cluster_that_ends_with_it(plan: Plan) -> None:
    options = [f"--port={plan.port}", f"--folder={plan.folder}", f"--root={plan.root}"]
    command = [sys.executable, "-c", "import os, sys; print(os.environ['HART_ENDPOINT']); sys.exit(7)"]
    ran = subprocess.run(
        [sys.executable, "-m", "cluster", *options, "run", "--", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 7, ran.stderr
    assert ran.stdout.splitlines()[-1] == f"127.0.0.1:{plan.port}"
    assert not any(process.port_taken() for process in plan.processes)

    supervisor.up(plan)
    subprocess.run([sys.executable, "-m", "cluster", *options, "run", "true"], cwd=ROOT, check=True)
    wait(plan.answers)  # a cluster that ran before is kept


def test_last_of_several_commands_stops_the_cluster(plan: Plan, tmp_path: Path) -> None:
    options = [f"--port={plan.port}", f"--folder={plan.folder}", f"--root={plan.root}"]
    begun, ended = ([tmp_path / f"{name}-{when}" for name in ("first", "second")] for when in ("begun", "ended"))
    commands = []
    for here, file in zip(begun, ended, strict=True):  # each command runs until its file exists
        command = ["sh", "-c", f"touch {here}; while [ ! -e {file} ]; do sleep 0.05; done"]
        words = [sys.executable, "-m", "cluster", *options, "run", "--", *command]
        commands.append(subprocess.Popen(words, cwd=ROOT, env={**os.environ, "REPLICAS_AR_GENERATOR": "2"}))
    wait(lambda: all(file.exists() for file in begun))
    for turn, file in enumerate(ended):
        wait(lambda: all(process.ready() for process in plan.processes))
        file.touch()
        assert commands[turn].wait(60) == 0
    assert not any(process.port_taken() for process in plan.processes)


def test_session_warns_if_the_running_cluster_has_other_settings(
    plan: Plan, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.up(plan)
    with session(plan):
        pass
    assert capsys.readouterr().err == ""
    with session(Plan.from_environment(plan.port, plan.folder, root, {**plan.environment, "HART_CHECKPOINT": "/a"})):
        pass
    assert f"using what runs at {plan.endpoint} as it is" in capsys.readouterr().err
    wait(plan.answers)


def test_up_during_a_session_keeps_the_cluster(plan: Plan) -> None:
    with session(plan):
        supervisor.up(plan)
    wait(plan.answers)


@pytest.mark.parametrize(
    ("name", "value"),
    [("REPLICAS_DECODER", "0"), ("REPLICAS_DECODER", "two"), ("REPLICAS_DECODER", "17"), ("REPLICAS_DECODERS", "2")],
)
def test_invalid_replica_count_is_refused_by_name(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=name):
        Plan.from_environment(50051, tmp_path, environment={name: value})


def test_default_ports_are_the_published_ones_and_endpoints_win(tmp_path: Path) -> None:
    environment = {"REPLICAS_SAFETY": "2", "HART_DECODER": "oip://far:8001/decoder"}
    plan = Plan.from_environment(50051, tmp_path, environment=environment)
    ports = {process.name: process.port for process in plan.processes}
    assert ports == {
        "safety-1": 50052,
        "safety-2": 50062,
        "text_encoder-1": 50053,
        "ar_generator-1": 50054,
        "gateway": 50051,
    }
    assert plan.processes[-1].settings["HART_SAFETY"] == "127.0.0.1:50052,127.0.0.1:50062"
    assert plan.processes[-1].settings["HART_DECODER"] == "oip://far:8001/decoder"


@pytest.mark.parametrize(
    ("listed", "here"),
    [
        ("127.0.0.1:50055", True),
        ("far:50055,oip://localhost:50065/decoder", True),
        ("file:///etc/decoders", True),
        ("127.0.0.1:1", False),
        ("127.0.0.1:500550", False),
        ("far:50055", False),
        ("dns:///decoders:50055", False),
    ],
)
def test_stage_starts_unless_its_endpoints_are_all_external(listed: str, here: bool, tmp_path: Path) -> None:
    environment = {"REPLICAS_DECODER": "2", "HART_DECODER": listed}
    plan = Plan.from_environment(50051, tmp_path, environment=environment)
    names = {process.name for process in plan.processes}
    assert len(plan.processes) == (6 if here else 4)
    assert ("decoder-2" in names) is here


@pytest.mark.parametrize("value", ["x", "0", "65000", "-1", ""])
def test_invalid_port_is_refused_by_name(value: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=rf"HART_PORT={value}: not a port"):
        Plan.from_environment(None, tmp_path, environment={"HART_PORT": value})


def test_port_comes_from_argument_then_environment_then_default(tmp_path: Path) -> None:
    environment = {"HART_PORT": "50151"}
    assert Plan.from_environment(50251, tmp_path, environment=environment).port == 50251
    moved = Plan.from_environment(None, tmp_path, environment=environment)
    assert [process.port for process in moved.processes] == [50152, 50153, 50154, 50155, 50151]
    assert {process.settings["HART_PORT"] for process in moved.processes} == {str(p.port) for p in moved.processes}
    assert Plan.from_environment(None, tmp_path, environment={}).port == 50051


def test_stages_share_the_processors_by_default(tmp_path: Path) -> None:
    shared = Plan.from_environment(50051, tmp_path, environment={})
    explicit = Plan.from_environment(50051, tmp_path, environment={"HART_TORCH_THREADS": "3"})
    assert {int(process.settings["HART_TORCH_THREADS"]) for process in shared.processes[:-1]} == {
        max(1, cpus.available() // 2)
    }
    assert {process.settings["HART_TORCH_THREADS"] for process in explicit.processes[:-1]} == {"3"}
    assert "HART_TORCH_THREADS" not in shared.processes[-1].settings


def test_process_that_ends_before_kill_does_not_stop_the_killing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended:
        def kill(self) -> None:
            raise psutil.NoSuchProcess(1)

    class Stubborn:
        killed = False

        def kill(self) -> None:
            self.killed = True

    stubborn = Stubborn()
    monkeypatch.setattr(psutil, "wait_procs", lambda processes, timeout: ([], processes))
    running.end([], [Ended(), stubborn])  # type: ignore[list-item]
    assert stubborn.killed
