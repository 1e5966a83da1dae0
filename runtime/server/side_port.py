"""One more gRPC port of a process, with services of its own: for probes, for an autoscaler. It imports no service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2_grpc

from runtime.observability.telemetry import Telemetry
from runtime.server.call_scope import Precheck
from runtime.server.health import Health
from runtime.server.interceptor import CallInterceptor
from runtime.server.options import server_options
from runtime.settings import ProcessSettings

S = TypeVar("S")


class PortTaken(OSError):
    """The configured address cannot be bound."""

    def __init__(self, setting: str, address: str) -> None:
        super().__init__(f"{setting}: cannot listen on {address}: is the port in use?")


@dataclass(frozen=True)
class PortLimits:
    """Limits of a port for a few calls with small messages."""

    calls: int
    """Max concurrent calls."""
    calls_per_connection: int
    message_bytes: int = 4096


class SidePort:
    """A port beside the process's own. It serves `health` and what is added.

    Its calls are gated by `gate`, but neither traced, counted nor guarded, and draining does not wait for them.
    """

    def __init__(
        self, settings: ProcessSettings, telemetry: Telemetry, gate: Precheck, health: Health, limits: PortLimits
    ) -> None:
        self.names: list[str] = []
        """Full names of the added services."""
        self._settings = settings
        self._interceptor = CallInterceptor(telemetry, gate, settings.receive_seconds, settings.send_seconds)
        self._server = grpc.aio.server(
            interceptors=[self._interceptor],
            options=[
                *server_options(settings),
                ("grpc.max_receive_message_length", limits.message_bytes),
                ("grpc.max_concurrent_streams", limits.calls_per_connection),
            ],
            maximum_concurrent_rpcs=limits.calls,
        )
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)

    def add(self, register: Callable[[S, grpc.aio.Server], None], servicer: S) -> None:
        """Serve `servicer`. `register` is its generated `add_XServicer_to_server`."""
        recorder = ServiceRecorder(self._server)
        register(servicer, cast("grpc.aio.Server", recorder))
        self.names += recorder.names
        self._interceptor.scope.background |= set(recorder.names)

    async def open(self, setting: str, port: int, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listen on `port` (0: the system chooses) and return the port. Without `credentials` in plaintext. Raises
        PortTaken, which names the setting."""
        address = address_of(self._settings.host, port)
        try:
            if credentials is None:
                opened = self._server.add_insecure_port(address)
            else:
                opened = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise PortTaken(setting, address) from error
        await self._server.start()
        return opened

    async def close(self, grace: float) -> None:
        """Close the port. Calls are cancelled after `grace` seconds."""
        await self._server.stop(grace)


class ServiceRecorder:
    """Takes the server's place while a servicer is registered, and records the services' names."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.names: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.ServiceRpcHandler]) -> None:
        """Pass the handlers on and record their service names."""
        self.names += [handler.service_name() for handler in handlers]
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, name: str, handlers: object) -> None:
        """Do nothing: the asyncio server does not use these handlers."""


def address_of(host: str, port: int) -> str:
    """The address to bind: "host:port", "[ipv6]:port", or a "unix:" path as it is."""
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
