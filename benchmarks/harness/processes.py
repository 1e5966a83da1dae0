"""Real processes of the cluster on free ports of this machine, for tests, drills and checks. Knows no test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.harness.ports import free_port
from common.stages import GATEWAY_SERVICE, START_SECONDS
from common.stages import STAGES as TABLE

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = {name: stage.service for name, stage in TABLE.items()} | {"gateway": GATEWAY_SERVICE}
STAGES = tuple(TABLE)
_CHANNEL_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
"""A pool of its own: a shared one would wait out the back-off of a process that was killed on the same port."""


def is_serving(address: str, service: str, timeout: float = 2.0) -> bool:
    """Whether `grpc.health.v1` at this address reports the service as SERVING."""
    with grpc.insecure_channel(address, _CHANNEL_OPTIONS) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@dataclass
class Process:
    """One process of the cluster; its log is a file in `folder`."""

    name: str
    """The stage or "gateway"."""
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings without the prefix HART_, in lower case."""
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
        """Whether its health check reports that it serves."""
        return is_serving(self.address, self.service)

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
        """Send SIGTERM and return the exit code. Kills a process that does not end, and raises TimeoutExpired."""
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
        """A gateway's settings that name the stages' addresses."""
        return {stage: ",".join(p.address for p in replicas) for stage, replicas in self.stages.items()}

    @contextmanager
    def another_gateway(self, **settings: str) -> Iterator[Process]:
        """One more gateway for the same stages, with the first one's settings except these."""
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
    kind: type[Process] = Process,
) -> Iterator[Cluster]:
    """A whole cluster, ready. `settings`: by process name; `kind`: of the stages' processes."""
    counts, chosen = dict(replicas or {}), dict(settings or {})
    stages = {
        stage: [
            kind(stage, folder, {"checkpoint": str(checkpoint), **chosen.get(stage, {})})
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
        for process in started:  # saves a second of torch's cleanup each; graceful shutdown has its own tests
            process.kill()
