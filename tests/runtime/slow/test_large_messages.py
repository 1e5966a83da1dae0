"""A message far over the limit is refused before it fills the memory, at every port: a real process."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.runtime.certificates import Authority
from tests.runtime.slow.test_process import process

LIMIT = 64 * 2**10
MESSAGE_MIB = 256
GROWTH_MIB = 32
"""What the process may grow by for such a message; it is less than 8 where nothing else happens."""
METHODS = (
    "/hart.v1.Decoder/Decode",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/no.such.Service/Method",
)


def peak(pid: int) -> float:
    """The most that was ever resident, MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 2**10


async def send(channel: grpc.aio.Channel, method: str) -> grpc.StatusCode:
    """How a message of MESSAGE_MIB ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        call: Any = channel.unary_unary(method)
        await call(bytes(MESSAGE_MIB * 2**20), timeout=120)
    return caught.value.code()


async def require_bounded(pid: int, target: str, open_channel: Callable[..., Any], *extra: Any) -> None:
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    before = peak(pid)
    for method in METHODS:
        async with open_channel(target, *extra, options=options) as channel:
            assert await send(channel, method) in (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.UNIMPLEMENTED,
                grpc.StatusCode.UNAVAILABLE,  # a plaintext health port that has closed the connection
            ), method
            assert peak(pid) - before < GROWTH_MIB, method


async def test_a_large_message_does_not_fill_the_memory() -> None:
    async with process(max_message_bytes=LIMIT) as running:
        port = (await running.logged("ready"))["port"]
        await require_bounded(running.child.pid, f"127.0.0.1:{port}", grpc.aio.insecure_channel)


async def test_nor_does_it_at_the_ports_of_a_process_with_tls(tmp_path: Path) -> None:
    authority = Authority()
    cert, key, ca = authority.write(tmp_path)
    async with process(max_message_bytes=LIMIT, tls_cert=cert, tls_key=key, tls_ca=ca) as running:
        await running.logged("ready")
        ports = await running.logged("listening")
        credentials = grpc.ssl_channel_credentials(*(Path(path).read_bytes() for path in (ca, key, cert)))
        pid = running.child.pid
        await require_bounded(pid, f"localhost:{ports['port']}", grpc.aio.secure_channel, credentials)
        await require_bounded(pid, f"127.0.0.1:{ports['health_port']}", grpc.aio.insecure_channel)
