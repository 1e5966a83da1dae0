"""Keepalive pings as clients of the field send them are taken at every port; a flood of them ends the connection."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc

from runtime.settings import ProcessSettings
from tests.runtime.certificates import Authority
from tests.runtime.pinger import Pinger
from tests.runtime.support import Running, request

PINGS = 5  # gRPC closes a connection with the third that comes too early
EVERY = 5.0


async def waiting_call(running: Running) -> bytes:
    """A call that waits while its client pings."""
    options = [("grpc.keepalive_time_ms", int(EVERY * 1000)), ("grpc.http2.max_pings_without_data", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.app.port}", options=options) as channel:
        call = type(running.stub)(channel).Decode(request(), timeout=100)
        await asyncio.sleep(PINGS * EVERY)
        running.engine.release.set()
        return bytes((await call).image)


async def test_pings_every_five_seconds_are_taken_with_and_without_calls(launch: Any, tmp_path: Path) -> None:
    cert, key, ca = Authority().write(tmp_path)
    plain = await launch(ProcessSettings(port=0))
    secure = await launch(ProcessSettings(port=0, tls_cert=cert, tls_key=key, tls_ca=ca))
    plain.engine.release.clear()
    assert secure.app.health_port
    idle = [await Pinger.connect(port) for port in (plain.app.port, secure.app.health_port)]
    answer, *_ = await asyncio.gather(waiting_call(plain), *(one.ping(PINGS, EVERY) for one in idle))
    assert answer == b"1.0"
    assert not any(one.gone for one in idle)
    for one in idle:
        one.close()
