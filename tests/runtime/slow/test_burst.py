"""runtime.server: a burst of calls while the event loop stands still. Each call gets its answer or a refusal."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import grpc
import pytest
from hart.v1 import decoder_pb2_grpc

from tests.runtime.slow.test_process import process
from tests.runtime.support import request

CONNECTIONS, CALLS = 12, 300
"""More calls than the 3,000 that gRPC by itself lets wait."""
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@pytest.mark.timeout(300)
async def test_a_burst_of_calls_is_answered_or_refused_but_never_cancelled() -> None:
    async with process() as running:
        port = (await running.logged("ready"))["port"]
        channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", OWN_CONNECTION) for _ in range(CONNECTIONS)]
        stubs = [decoder_pb2_grpc.DecoderStub(channel) for channel in channels]
        for stub in stubs:
            await stub.Decode(request(), timeout=60)
        running.child.send_signal(signal.SIGSTOP)
        calls = [stub.Decode(request(), timeout=120) for stub in stubs for _ in range(CALLS)]
        await asyncio.sleep(2)  # the calls are sent
        running.child.send_signal(signal.SIGCONT)
        codes = Counter([await call.code() for call in calls])
        for channel in channels:
            await channel.close()
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}, codes
    assert codes[grpc.StatusCode.OK] >= 64, codes
