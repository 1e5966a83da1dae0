"""A compressed request is refused before it is unfolded, at every port, and leaves no trace of an error in the log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.runtime.certificates import Authority
from tests.runtime.slow.test_large_messages import peak
from tests.runtime.slow.test_process import process
from tests.runtime.support import request

BOMB = bytes(40 * 2**20)
METHODS = ("/hart.v1.Decoder/Decode", "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch")


async def send(channel: Any, method: str, message: bytes) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(method)(message, timeout=60)
    return caught.value


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_compressed_request_is_refused_unread(tmp_path: Path, kind: grpc.Compression) -> None:
    cert, key, ca = Authority().write(tmp_path)
    async with process(tls_cert=cert, tls_key=key, tls_ca=ca) as running:
        await running.logged("ready")
        ports = await running.logged("listening")
        credentials = grpc.ssl_channel_credentials(*(Path(path).read_bytes() for path in (ca, key, cert)))
        secure = grpc.aio.secure_channel(f"localhost:{ports['port']}", credentials, compression=kind)
        plain = grpc.aio.insecure_channel(f"127.0.0.1:{ports['health_port']}", compression=kind)
        async with secure, plain:
            before = peak(running.child.pid)
            for channel in (secure, plain):
                for error in await asyncio.gather(*(send(channel, method, BOMB) for method in METHODS)):
                    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
            assert peak(running.child.pid) - before < 20
            small = await send(secure, METHODS[0], request().SerializeToString() + bytes(2000))
            assert "is disabled" in str(small.details())
        assert [line.get("exception", line["message"]) for line in running.lines if line["level"] == "error"] == []


async def test_a_message_over_the_limit_leaves_no_error_in_the_log() -> None:
    async with process(max_message_bytes=2**16) as running:
        port = (await running.logged("ready"))["port"]
        options = [("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            calls = [send(channel, "/hart.v1.Decoder/Decode", bytes(2**20)) for _ in range(50)]
            assert {error.code() for error in await asyncio.gather(*calls)} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        running.child.terminate()
        await running.end()
        assert [line.get("exception", line["message"]) for line in running.lines if line["level"] == "error"] == []
