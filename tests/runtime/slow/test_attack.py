"""runtime.server: every port of a real process under attack stays up, with bounded memory, and serves others."""

from __future__ import annotations

import asyncio
import os
import random
import struct
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hart.v1 import decoder_pb2_grpc

from tests.runtime.certificates import Authority
from tests.runtime.http2 import PREFACE, frame, literal
from tests.runtime.slow.test_process import process
from tests.runtime.support import request

HEADERS = (
    literal(b":method", b"POST")
    + literal(b":scheme", b"http")
    + literal(b":path", b"/hart.v1.Decoder/Decode")
    + literal(b":authority", b"x")
    + literal(b"content-type", b"application/grpc")
    + literal(b"te", b"trailers")
)


CHECK_PATH = literal(b":path", b"/grpc.health.v1.Health/Check")


def memory(pid: int) -> float:
    """Resident MiB."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def connect(port: int, data: bytes = b"") -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    return writer


async def noise(port: int) -> list[asyncio.StreamWriter]:
    rng = random.Random(1)
    return [await connect(port, (PREFACE if i % 2 else b"") + rng.randbytes(2000)) for i in range(200)]


async def idle(port: int) -> list[asyncio.StreamWriter]:
    half = PREFACE + frame(4, 0, 0, b"")
    return [await connect(port, half[: i % len(half)]) for i in range(1000)]


async def slow_senders(port: int) -> list[asyncio.StreamWriter]:
    """Calls whose message is announced as 1 MiB and never comes."""
    begin = PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, HEADERS)
    announced = frame(0, 0, 1, b"\0" + struct.pack(">I", 2**20) + b"x")
    return [await connect(port, begin + announced) for _ in range(300)]


async def header_floods(port: int) -> list[asyncio.StreamWriter]:
    """Headers far over the limit, and CONTINUATION frames without end."""
    big = b"".join(literal(b"x-%d" % i, b"y" * 8000) for i in range(2))
    writers = []
    for i in range(50):
        endless = frame(1, 0, 1, HEADERS + big[:8000]) + frame(9, 0, 1, b"\0" * 16000) * 40
        whole = frame(1, 4, 1, HEADERS) + frame(1, 4, 3, big)
        writers.append(await connect(port, PREFACE + frame(4, 0, 0, b"") + (endless if i % 2 else whole)))
    return writers


async def floods_of_resets(port: int) -> list[asyncio.StreamWriter]:
    """Calls opened and reset at once (CVE-2023-44487)."""
    begin = PREFACE + frame(4, 0, 0, b"")
    storm = b"".join(frame(1, 4, s, HEADERS) + frame(3, 0, s, struct.pack(">I", 8)) for s in range(1, 1001, 2))
    return [await connect(port, begin + storm) for _ in range(5)]


async def settings_floods(port: int) -> list[asyncio.StreamWriter]:
    begin = PREFACE + frame(4, 0, 0, b"")
    return [await connect(port, begin + frame(6, 0, 0, b"12345678") * 5000) for _ in range(20)]


ATTACKS: list[Any] = [noise, idle, slow_senders, header_floods, floods_of_resets, settings_floods]


async def test_attacks_on_the_port_leave_other_calls_and_memory_intact() -> None:
    async with process() as running:
        port = (await running.logged("ready"))["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = decoder_pb2_grpc.DecoderStub(channel)
            assert (await stub.Decode(request(), timeout=60)).image == b"1.0"
            before = memory(running.child.pid)
            for attack in ATTACKS:
                writers = await attack(port)
                answers = [await stub.Decode(request(), timeout=90) for _ in range(5)]
                assert [a.image for a in answers] == [b"1.0"] * 5, attack.__name__
                assert running.child.returncode is None, attack.__name__
                assert memory(running.child.pid) - before < 200, attack.__name__
                for writer in writers:
                    writer.transport.abort()
            async with asyncio.timeout(60):
                while len(os.listdir(f"/proc/{running.child.pid}/fd")) > 100:
                    await asyncio.sleep(0.1)


# -- metrics and health ports ----------------------------------------------------------------------------------------


async def slow_scrapes(port: int) -> list[asyncio.StreamWriter]:
    """Requests that never end."""
    return [await connect(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: "[: 20 + i % 30]) for i in range(300)]


async def scrape_floods(port: int) -> list[asyncio.StreamWriter]:
    """A header line without end, and headers without end."""
    line, many = b"X-Long: " + b"y" * 10**6, b"".join(b"X-%d: y\r\n" % i for i in range(20_000))
    return [await connect(port, b"GET /metrics HTTP/1.1\r\n" + (line if i % 2 else many)) for i in range(40)]


async def scrape(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


async def test_attacks_on_the_metrics_port_leave_scrapes_intact() -> None:
    async with process() as running:
        ready = await running.logged("ready")
        port = (await running.logged("listening"))["metrics_port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ready['port']}") as channel:
            stub = decoder_pb2_grpc.DecoderStub(channel)
            assert (await stub.Decode(request(), timeout=60)).image == b"1.0"
            before, had = memory(running.child.pid), threads(running.child.pid)
            for attack in (noise, idle, slow_scrapes, scrape_floods):
                writers = await attack(port)
                assert b"hart_requests_total" in await scrape(port), attack.__name__
                assert (await stub.Decode(request(), timeout=60)).image == b"1.0"
                assert threads(running.child.pid) < had + 40, attack.__name__
                assert memory(running.child.pid) - before < 100, attack.__name__
                for writer in writers:
                    writer.transport.abort()
            async with asyncio.timeout(60):
                while threads(running.child.pid) > had + 1:
                    await asyncio.sleep(0.1)


async def test_attacks_on_the_health_port_leave_probes_intact(tmp_path: Path) -> None:
    cert, key, ca = Authority().write(tmp_path)
    async with process(tls_cert=cert, tls_key=key, tls_ca=ca) as running:
        await running.logged("ready")
        ports = await running.logged("listening")
        before = memory(running.child.pid)
        for attack in ATTACKS:
            for port in (ports["health_port"], ports["port"]):
                writers = await attack(port)
                async with grpc.aio.insecure_channel(f"127.0.0.1:{ports['health_port']}") as channel:
                    asked = health_pb2.HealthCheckRequest(service="hart.v1.Decoder")
                    answer = await health_pb2_grpc.HealthStub(channel).Check(asked, timeout=60, wait_for_ready=True)
                assert answer.status == 1, (attack.__name__, port)
                for writer in writers:
                    writer.transport.abort()
        assert running.child.returncode is None
        assert memory(running.child.pid) - before < 200


async def test_sixteen_peers_that_hold_health_calls_do_not_lock_out_the_kubelet(tmp_path: Path) -> None:
    cert, key, ca = Authority().write(tmp_path)
    headers = HEADERS.replace(literal(b":path", b"/hart.v1.Decoder/Decode"), CHECK_PATH)
    held = b"".join(frame(1, 4, stream, headers) for stream in range(1, 201, 2))
    async with process(tls_cert=cert, tls_key=key, tls_ca=ca, receive_seconds=60) as running:
        await running.logged("ready")
        port = (await running.logged("listening"))["health_port"]
        writers = [await connect(port, PREFACE + frame(4, 0, 0, b"") + held) for _ in range(16)]
        await asyncio.sleep(1)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(5):
                answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
                assert answer.status == 1
        for writer in writers:
            writer.transport.abort()


async def test_invalid_header_is_logged_without_its_value() -> None:
    async with process() as running:
        port = (await running.logged("ready"))["port"]
        key = literal(b"authorization", b"Bearer s\xe9cret-key-1234")
        empty = frame(0, 1, 1, b"\0\0\0\0\0")
        writer = await connect(port, PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, HEADERS + key) + empty)
        logged = await running.logged("Invalid encoding")
        writer.transport.abort()
        assert logged["level"] == "error"
        running.child.terminate()
        await running.end()
        assert "cret-key" not in str(running.lines)


async def test_malformed_messages_of_any_length_are_refused() -> None:
    rng = random.Random(2)
    async with process() as running:
        port = (await running.logged("ready"))["port"]
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.max_send_message_length", -1)]
        ) as channel:
            decode: Any = channel.unary_unary("/hart.v1.Decoder/Decode")
            deep = b""
            for _ in range(200):  # groups within groups
                deep = b"\x0b" + deep + b"\x0c"
            for data in [rng.randbytes(rng.randrange(200)) for _ in range(200)] + [deep, b"\0" * 10**6]:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await decode(data, timeout=60)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await decode(b"\0" * (100 * 2**20), timeout=60)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await decoder_pb2_grpc.DecoderStub(channel).Decode(request(), timeout=60)).image == b"1.0"
