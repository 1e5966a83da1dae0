"""The processes of a cluster on one machine, their ports and their settings; starts nothing."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common import cpus
from common.stages import GATEWAY_PORT, GATEWAY_SERVICE, HEALTH_PORT_OFFSET, HTTP_PORT_OFFSET, STAGES

ROOT = Path(__file__).resolve().parent.parent
REPLICA_STEP = 10
MAX_REPLICAS = 16
HIGHEST_PORT = 65535 - max(HTTP_PORT_OFFSET, HEALTH_PORT_OFFSET + REPLICA_STEP * MAX_REPLICAS)
THREADS = "HART_TORCH_THREADS"
TLS = "HART_TLS_CERT"
HTTP_PORT = "HART_HTTP_PORT"


class PlanError(Exception):
    """The environment asks for something impossible; names the variable and the reason."""


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
    http_port: int = 0
    """Where the HTTP API is served; 0: nowhere."""

    @property
    def command(self) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", self.module]

    def ready(self, timeout: float = 1.0) -> bool:
        """Whether its health service answers SERVING."""
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

    def taken_port(self) -> int | None:
        """Which of its ports something listens on already; None for none."""
        return next((port for port in (self.port, self.http_port) if port and _listens(port)), None)

    def port_taken(self) -> bool:
        """Whether something listens on one of its ports already."""
        return self.taken_port() is not None


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
        """Read REPLICAS_<STAGE> and, where `port` is None, HART_PORT; PlanError names a variable with a wrong value."""
        port = (
            _port("HART_PORT", environment.get("HART_PORT", str(GATEWAY_PORT)))
            if port is None
            else _port("--port", str(port))
        )
        replicas = {stage: _count(f"REPLICAS_{stage.upper()}", environment) for stage in STAGES}
        known = {f"REPLICAS_{stage.upper()}" for stage in STAGES}
        unknown = sorted(name for name in environment if name.startswith("REPLICAS_") and name not in known)
        if unknown:
            raise PlanError(f"{unknown[0]}: there is no such stage; there are {', '.join(sorted(known))}")
        plan = cls(port, folder, replicas, dict(environment), root)
        _ = plan.http_port  # raises PlanError
        return plan

    @property
    def endpoint(self) -> str:
        """The address for callers."""
        return f"127.0.0.1:{self.port}"

    @property
    def http_port(self) -> int:
        """The port of the HTTP API: HART_HTTP_PORT, else 3000 above the gateway's. PlanError where it is no port."""
        given = self.environment.get(HTTP_PORT)
        return self.port + HTTP_PORT_OFFSET if given is None else _port(HTTP_PORT, given, 65535)

    @property
    def http_url(self) -> str:
        """The address for HTTP callers."""
        scheme = "https" if self.environment.get(TLS) else "http"
        return f"{scheme}://127.0.0.1:{self.http_port}"

    def ports(self, stage: str) -> list[int]:
        """The ports of a stage's replicas."""
        first = self.port + STAGES[stage].port_offset
        return [first + REPLICA_STEP * replica for replica in range(self.replicas[stage])]

    @cached_property
    def processes(self) -> list[Process]:
        """The stages' replicas, then the gateway with their addresses."""
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
        gateway = self._process("gateway", "gateway", GATEWAY_SERVICE, self.port, **where)
        http = {HTTP_PORT: str(self.http_port)}
        found.append(replace(gateway, settings={**gateway.settings, **http}, http_port=self.http_port))
        return found

    @property
    def named(self) -> dict[str, str]:
        """The operator's own endpoints by stage. They win, and may name a stage elsewhere or an oip:// endpoint."""
        lists = {stage: self.environment.get(f"HART_{stage.upper()}") for stage in STAGES}
        return {stage: listed for stage, listed in lists.items() if listed is not None}

    def _elsewhere(self, stage: str) -> bool:
        """Whether the operator's list has none of the stage's ports here; the contents of a file are not read."""
        listed = self.named.get(stage)
        here = "|".join(map(str, self.ports(stage)))
        own = rf"(^|[,/\s])file:|\b(127\.0\.0\.1|localhost):({here})\b"
        return listed is not None and re.search(own, listed) is None

    @property
    def _threads(self) -> dict[str, str]:
        """Half of the CPUs of this process to each stage, unless the operator sets the number.

        Processes that each take all processors wait for one another in every operation.
        """
        return {THREADS: self.environment.get(THREADS, str(max(1, cpus.available() // 2)))}

    def _process(self, name: str, module: str, service: str, port: int, **settings: str) -> Process:
        secured = bool(self.environment.get(TLS))
        health_port = port + HEALTH_PORT_OFFSET if secured else 0
        return Process(name, module, service, port, {"HART_PORT": str(port), **settings}, health_port)

    def answers(self) -> bool:
        """Whether a gateway serves at this plan's endpoint."""
        return self.processes[-1].ready()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _port(name: str, value: str, highest: int = HIGHEST_PORT) -> int:
    if not value.isdecimal() or not 1 <= int(value) <= highest:
        room = ", which leaves room for the stages' own" if highest == HIGHEST_PORT else ""
        raise PlanError(f"{name}={value}: not a port from 1 to {highest}{room}")
    return int(value)


def _count(name: str, environment: Mapping[str, str]) -> int:
    value = environment.get(name, "1")
    if not value.isdecimal() or not 1 <= int(value) <= MAX_REPLICAS:
        raise PlanError(f"{name}={value}: not a number from 1 to {MAX_REPLICAS}")
    return int(value)
