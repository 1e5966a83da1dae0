"""Which processes a cluster on one machine has, on which ports, with which settings; starts nothing."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common import cpus
from common.stages import GATEWAY_PORT, GATEWAY_SERVICE, HEALTH_PORT_OFFSET, STAGES

ROOT = Path(__file__).resolve().parent.parent
REPLICA_STEP = 10
MAX_REPLICAS = 16
HIGHEST_PORT = 65535 - HEALTH_PORT_OFFSET - REPLICA_STEP * MAX_REPLICAS
THREADS = "HART_TORCH_THREADS"
TLS = "HART_TLS_CERT"


class PlanError(Exception):
    """The environment asks for something that cannot be; says which variable and why."""


@dataclass(frozen=True)
class Process:
    """One process."""

    name: str
    """Of the watcher and its log: "decoder-1"."""
    module: str
    """What `python -m` runs."""
    service: str
    """The gRPC service whose health says ready."""
    port: int
    """On 127.0.0.1; metrics are on port + 1000."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables beside the environment's own."""
    health_port: int = 0
    """Where health is served in plaintext; 0: on `port`, for there is no TLS."""

    @property
    def command(self) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", self.module]

    def ready(self, timeout: float = 1.0) -> bool:
        """Whether it answers and calls itself ready."""
        with grpc.insecure_channel(
            f"127.0.0.1:{self.health_port or self.port}", [("grpc.enable_http_proxy", 0)]
        ) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=self.service), timeout=timeout
                )
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def port_taken(self) -> bool:
        """Whether something listens on its port already."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@dataclass(frozen=True)
class Plan:
    """A whole cluster."""

    port: int
    """The gateway's; stage k of the order is at port + 1 + k, its further replicas each 10 higher."""
    folder: Path
    """For logs and the process id."""
    replicas: Mapping[str, int]
    """By stage."""
    environment: Mapping[str, str]
    """What every process inherits."""
    root: Path = ROOT
    """The checkout whose processes run."""

    @classmethod
    def from_environment(
        cls, port: int | None, folder: Path, root: Path = ROOT, environment: Mapping[str, str] = os.environ
    ) -> Plan:
        """REPLICAS_<STAGE> says how many of each, HART_PORT the port where `port` does not; PlanError names a variable
        that makes no sense."""
        port = (
            _port("HART_PORT", environment.get("HART_PORT", str(GATEWAY_PORT)))
            if port is None
            else _port("--port", str(port))
        )
        replicas = {stage: _count(f"REPLICAS_{stage.upper()}", environment) for stage in STAGES}
        known = {f"REPLICAS_{stage.upper()}" for stage in STAGES}
        strangers = sorted(name for name in environment if name.startswith("REPLICAS_") and name not in known)
        if strangers:
            raise PlanError(f"{strangers[0]}: there is no such stage; there are {', '.join(sorted(known))}")
        return cls(port, folder, replicas, dict(environment), root)

    @property
    def endpoint(self) -> str:
        """Where callers go."""
        return f"127.0.0.1:{self.port}"

    def ports(self, stage: str) -> list[int]:
        """The ports of a stage's replicas."""
        first = self.port + STAGES[stage].port_offset
        return [first + REPLICA_STEP * replica for replica in range(self.replicas[stage])]

    @cached_property
    def processes(self) -> list[Process]:
        """The stages' replicas, then the gateway that is told where they are."""
        found = [
            self._process(f"{name}-{number}", f"services.{name}", stage.service, port, **self._threads)
            for name, stage in STAGES.items()
            for number, port in enumerate(self.ports(name), 1)
            if not self._elsewhere(name)
        ]
        where = {
            f"HART_{stage.upper()}": self.named.get(stage, ",".join(f"127.0.0.1:{port}" for port in self.ports(stage)))
            for stage in STAGES
        }
        found.append(self._process("gateway", "gateway", GATEWAY_SERVICE, self.port, **where))
        return found

    @property
    def named(self) -> dict[str, str]:
        """The operator's own lists by stage, which win: they may name a stage elsewhere, or an oip:// endpoint."""
        lists = {stage: self.environment.get(f"HART_{stage.upper()}") for stage in STAGES}
        return {stage: listed for stage, listed in lists.items() if listed is not None}

    def _elsewhere(self, stage: str) -> bool:
        """Whether the operator's list has none of the stage's ports here; what is in a file is not known."""
        listed = self.named.get(stage)
        here = "|".join(map(str, self.ports(stage)))
        own = rf"(^|[,/\s])file:|\b(127\.0\.0\.1|localhost):({here})\b"
        return listed is not None and re.search(own, listed) is None

    @property
    def _threads(self) -> dict[str, str]:
        """Half of the CPUs of this process to each stage, unless the operator sets the number.

        Side by side, processes that each take all of them wait for one another in every operation.
        """
        return {THREADS: self.environment.get(THREADS, str(max(1, cpus.available() // 2)))}

    def _process(self, name: str, module: str, service: str, port: int, **settings: str) -> Process:
        secured = bool(self.environment.get(TLS))
        health_port = port + HEALTH_PORT_OFFSET if secured else 0
        return Process(name, module, service, port, {"HART_PORT": str(port), **settings}, health_port)

    def answers(self) -> bool:
        """Whether a gateway serves at this plan's endpoint."""
        return self.processes[-1].ready()


def _port(name: str, value: str) -> int:
    if not value.isdecimal() or not 1 <= int(value) <= HIGHEST_PORT:
        raise PlanError(f"{name}={value}: not a port from 1 to {HIGHEST_PORT}, which leaves room for the stages' own")
    return int(value)


def _count(name: str, environment: Mapping[str, str]) -> int:
    value = environment.get(name, "1")
    if not value.isdecimal() or not 1 <= int(value) <= MAX_REPLICAS:
        raise PlanError(f"{name}={value}: not a number from 1 to {MAX_REPLICAS}")
    return int(value)
