"""After an outage a client finds its gateway within seconds."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
from hart import AsyncClient, Client, Unavailable
from hart.v1 import images_pb2_grpc

from benchmarks.harness.ports import free_port
from tests.client.conftest import Gateway

OUTAGE, SOON = 17.0, 5.0
"""Seconds. By its defaults gRPC would look again nine seconds after such an outage."""


async def first_success(ask: Any, back: asyncio.Event) -> float:
    """Seconds from the gateway's return to the first answer; it is asked again and again, from before the outage."""
    returned = 0.0
    while True:
        try:
            await ask()
            return time.monotonic() - returned if returned else 0.0
        except Unavailable:
            if back.is_set() and not returned:
                returned = time.monotonic()
            await asyncio.sleep(0.2)


async def test_a_gateway_that_comes_back_is_found_within_seconds() -> None:
    port, back = free_port(), asyncio.Event()
    server = grpc.aio.server()
    images_pb2_grpc.add_ImagesServicer_to_server(Gateway(), server)
    with Client(f"127.0.0.1:{port}") as client:
        async with AsyncClient(f"127.0.0.1:{port}") as other:
            asking = asyncio.gather(
                first_success(lambda: asyncio.to_thread(client.status, timeout=5), back),
                first_success(lambda: other.status(timeout=5), back),
            )
            await asyncio.sleep(OUTAGE)
            server.add_insecure_port(f"127.0.0.1:{port}")
            await server.start()
            back.set()
            try:
                waited = await asyncio.wait_for(asking, 60)
            finally:
                await server.stop(0)
    assert max(waited) < SOON, waited
