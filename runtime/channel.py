"""gRPC client channels: options, plaintext or TLS."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, TypeAlias

import grpc

from runtime import tls
from runtime.settings import is_loopback

END_SECONDS = 1.0
_ending: set[asyncio.Task[None]] = set()  # strong references: grpc.aio cancels a call that is garbage-collected
StreamingCall: TypeAlias = "grpc.aio.UnaryStreamCall[Any, Any] | grpc.aio.StreamStreamCall[Any, Any]"
FileVersions = tuple[tuple[int, int, int], ...]


class ChannelFactory:
    """Creates channels. Without `files.ca` they are plaintext, and only to loopback unless `allow_plaintext`. Raises
    OSError or ValueError, which names an unusable file."""

    def __init__(self, files: tls.Files | None = None, *, allow_plaintext: bool = False) -> None:
        self._files = files if files and files.ca else None
        if self._files:
            self._files.require_usable()
        self._allow_plaintext = allow_plaintext
        self._stamp: FileVersions = self._files.stamp() if self._files else ()

    def open(self, address: str, name: str = "") -> grpc.aio.Channel:
        """Open a channel that shares no connection. `name`: the name that the peer's certificate must contain, if it is
        not the address's host. Raises ValueError if plaintext would leave the machine."""
        if self._files:
            named = [("grpc.ssl_target_name_override", name)] if name else []
            return grpc.aio.secure_channel(address, tls.channel_credentials(self._files), options=[*OPTIONS, *named])
        self.require_reach(address)
        return grpc.aio.insecure_channel(address, options=OPTIONS)

    def require_reach(self, address: str) -> None:
        """Raise ValueError if plaintext would leave the machine."""
        if not self._files and not self._allow_plaintext and not is_loopback(_host(address)):
            raise ValueError(
                f"{address} is not loopback: set HART_STAGE_TLS_CA (and HART_STAGE_TLS_CERT, HART_STAGE_TLS_KEY), or "
                "allow plaintext with HART_ALLOW_PLAINTEXT=true"
            )

    def stamp(self) -> FileVersions:
        """A value that changes with the certificate files. Open new channels when it changes."""
        if self._files:
            with suppress(OSError):  # between removal and replacement
                self._stamp = self._files.stamp()
        return self._stamp


def drain_call(call: StreamingCall) -> None:
    """Let a streaming call end by itself after its last response. Cancelling it at once would be counted by the server
    as a client that left. It is cancelled after END_SECONDS."""
    task = asyncio.create_task(_ended(call))
    _ending.add(task)
    task.add_done_callback(_ending.discard)


async def _ended(call: StreamingCall) -> None:
    try:
        async with asyncio.timeout(END_SECONDS):
            if isinstance(call, grpc.aio.StreamStreamCall):
                await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass
    except (grpc.RpcError, asyncio.InvalidStateError, TimeoutError):
        pass
    finally:
        call.cancel()


def _host(address: str) -> str:
    return address if address.startswith("unix:") else address.rpartition(":")[0]


OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", 256 * 2**20),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A returning replica must be usable within seconds; the default backs off up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]
