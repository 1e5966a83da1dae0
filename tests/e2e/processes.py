"""Real processes of the cluster on free local ports, for tests and benchmarks."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.stages import GATEWAY_SERVICE, START_SECONDS
from common.stages import STAGES as TABLE

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = {name: stage.service for name, stage in TABLE.items()} | {"gateway": GATEWAY_SERVICE}
STAGES = tuple(TABLE)
_given: list[socket.socket] = []


def free_port() -> int:
    """A free port below the ephemeral range (from 32768), so that a killed process can bind its port again. Never the
    same twice, nor for another run on this machine: the process binds it only seconds later."""
    while True:
        port = secrets.randbelow(12_000) + 20_000
        mark = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                mark.bind(f"\0hart-port-{port}")  # an abstract name: released when this process ends
            except OSError:
                mark.close()
                continue
        _given.append(mark)
        return port


@dataclass
class Process:
    """One process of the cluster; its log is a file in `folder`."""

    name: str
    """The stage or "gateway"."""
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables without the prefix HART_, in lower case."""
    port: int = 0
    metrics_port: int = 0

    def start(self) -> Process:
        """Start it and return at once."""
        self.port, self.metrics_port = self.port or free_port(), self.metrics_port or free_port()
        own = {"port": str(self.port), "metrics_port": str(self.metrics_port), **self.settings}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HART_")}
        environment |= {f"HART_{name.upper()}": value for name, value in own.items()}
        environment.setdefault("OMP_NUM_THREADS", "1")
        self.log = self.folder / f"{self.name}-{self.port}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip
        return self

    @property
    def module(self) -> str:
        """The module for `python -m`."""
        return "gateway" if self.name == "gateway" else f"services.{self.name}"

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def service(self) -> str:
        """The full name of its gRPC service."""
        return SERVICES[self.name]

    def ready(self) -> bool:
        """Whether its health is SERVING."""
        with grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                request = health_pb2.HealthCheckRequest(service=self.service)
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=2)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def await_ready(self, seconds: float = START_SECONDS) -> Process:
        """Wait until it is ready. Raises RuntimeError with the end of its log."""
        end = time.monotonic() + seconds
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} is not ready (exit code {self.process.poll()}):\n{self.tail()}")
            time.sleep(0.05)
        return self

    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 60.0) -> int:
        """Send SIGTERM and return the exit code. A process that does not end is killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


@dataclass
class Cluster:
    """The four stages and a gateway."""

    folder: Path
    stages: dict[str, list[Process]]
    gateway: Process

    @property
    def endpoint(self) -> str:
        """The gateway's address."""
        return self.gateway.address

    def processes(self) -> list[Process]:
        """All of them."""
        return [*(p for replicas in self.stages.values() for p in replicas), self.gateway]

    def where(self) -> dict[str, str]:
        """A gateway's settings with the addresses of the stages."""
        return {stage: ",".join(p.address for p in replicas) for stage, replicas in self.stages.items()}

    @contextmanager
    def another_gateway(self, **settings: str) -> Iterator[Process]:
        """One more gateway for the same stages, with the first one's settings updated by these."""
        process = Process("gateway", self.folder, {**self.gateway.settings, **settings}).start()
        try:
            yield process.await_ready()
        finally:
            process.stop()


@contextmanager
def running_cluster(
    folder: Path,
    checkpoint: Path,
    replicas: Mapping[str, int] | None = None,
    settings: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Cluster]:
    """A whole cluster, ready. `settings`: by process name."""
    counts, chosen = dict(replicas or {}), dict(settings or {})
    stages = {
        stage: [
            Process(stage, folder, {"checkpoint": str(checkpoint), **chosen.get(stage, {})})
            for _ in range(counts.get(stage, 1))
        ]
        for stage in STAGES
    }
    cluster = Cluster(folder, stages, Process("gateway", folder))
    started: list[Process] = []
    try:
        for process in cluster.processes()[:-1]:
            started.append(process.start())
        cluster.gateway.settings = {**cluster.where(), **chosen.get("gateway", {})}
        for process in started:
            process.await_ready()
        started.append(cluster.gateway.start())
        cluster.gateway.await_ready()
        yield cluster
    finally:
        for process in started:  # a clean exit of torch takes a second each; clean exits are tested elsewhere
            process.kill()
