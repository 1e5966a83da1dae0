"""runtime.server.process: start, drain and exit, with real processes and signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from hart.v1 import decoder_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from runtime.calls.pool import Pool
from runtime.discovery.endpoint import Endpoint
from runtime.discovery.sources import StaticSource
from runtime.errors import StageUnavailable
from tests.runtime.support import request


class Process:
    """A running fake service and its log."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.lines: list[dict[str, Any]] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.child.stderr
        async for line in self.child.stderr:
            if line.startswith(b"{"):  # gRPC's own core writes plain lines
                self.lines.append(json.loads(line))

    async def logged(self, message: str) -> dict[str, Any]:
        async with asyncio.timeout(90):
            while True:
                for line in self.lines:
                    if line["message"].startswith(message):
                        return line
                await asyncio.sleep(0.02)

    async def received(self, calls: int) -> None:
        """Wait until the process has received `calls` calls, ongoing or ended."""
        port = (await self.logged("listening"))["metrics_port"]
        async with asyncio.timeout(90):
            while await asyncio.to_thread(_counted, port) < calls:
                await asyncio.sleep(0.02)

    async def end(self) -> int:
        code = await asyncio.wait_for(self.child.wait(), 60)
        await self._reader
        return code


def _counted(port: int) -> float:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(s.value for s in samples if s.name in ("hart_inflight", "hart_requests_total"))


@asynccontextmanager
async def process(**settings: Any) -> AsyncIterator[Process]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("HART_")}
    env |= {"HART_PORT": "0", "PYTHONPATH": "."} | {f"HART_{k.upper()}": str(v) for k, v in settings.items()}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.runtime.fake_service", env=env, stderr=asyncio.subprocess.PIPE
    )
    running = Process(child)
    try:
        yield running
    finally:
        if child.returncode is None:
            child.kill()
            await running.end()


async def test_sigterm_finishes_running_calls_and_exits_with_0() -> None:
    async with process(seconds=0.6) as running:
        port = (await running.logged("ready"))["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = decoder_pb2_grpc.DecoderStub(channel)
            calls = [stub.Decode(request(float(i)), timeout=60) for i in range(5)]  # three batches of two
            await running.received(5)
            running.child.send_signal(signal.SIGTERM)
            await running.logged("draining")
            try:
                await stub.Decode(request(), timeout=60)
                raise AssertionError("new work was taken while draining")
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
            assert [(await c).image for c in calls] == [b"0.0", b"1.0", b"2.0", b"3.0", b"4.0"]
        assert await running.end() == 0


async def test_second_sigterm_exits_at_once() -> None:
    async with process(seconds=300) as running:
        port = (await running.logged("ready"))["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = decoder_pb2_grpc.DecoderStub(channel).Decode(request())
            await running.received(1)
            running.child.send_signal(signal.SIGTERM)
            await running.logged("draining")
            running.child.send_signal(signal.SIGTERM)
            assert await running.end() == 128 + signal.SIGTERM
            call.cancel()


async def test_lost_device_exits_and_fails_calls_as_unavailable() -> None:
    async with process(lost_at=5) as running:
        port = (await running.logged("ready"))["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = decoder_pb2_grpc.DecoderStub(channel)
            calls = [stub.Decode(request(float(i)), timeout=60) for i in range(5)]  # three batches of two
            for call in calls:
                assert await call.code() is grpc.StatusCode.UNAVAILABLE
                assert (await call.details()).startswith("decoder is unavailable")
        assert await running.end() == 0


async def test_calls_longer_than_drain_seconds_are_cancelled() -> None:
    async with process(seconds=300, drain_seconds=0.3) as running:
        port = (await running.logged("ready"))["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = decoder_pb2_grpc.DecoderStub(channel).Decode(request())
            await running.received(1)
            running.child.send_signal(signal.SIGTERM)
            assert await running.end() == 0
            assert (await call.code()) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_sigterm_during_load_does_not_wait_for_the_weights() -> None:
    async with process(load_seconds=300) as running:
        await running.logged("listening")
        running.child.send_signal(signal.SIGTERM)
        assert await running.end() == 0


@pytest.mark.parametrize("setting", ["port", "metrics_port"])
async def test_port_in_use_is_named_and_exits_with_1(setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with process(**{"port": 0, "metrics_port": 0, setting: port}) as running:
            assert await running.end() == 1
            failure = await running.logged(f"HART_{setting.upper()}: cannot listen on 127.0.0.1:{port}")
            assert "exception" not in failure


async def test_log_shows_settings_and_misspelt_variables() -> None:
    async with process(max_message_byte=1, otlp_endpoint="http://user:hunter2@127.0.0.1:9") as running:
        shown = (await running.logged("settings"))["settings"]
        assert shown["max_message_bytes"] == 64 * 2**20
        warning = await running.logged("unknown setting HART_MAX_MESSAGE_BYTE:")
        assert "HART_MAX_MESSAGE_BYTES" in warning["message"]
        assert "hunter2" not in json.dumps(running.lines)


async def test_paused_process_is_left_and_used_again_when_resumed() -> None:
    async with process() as running:
        port = (await running.logged("ready"))["port"]
        pool = Pool("decoder", "hart.v1.Decoder", StaticSource(frozenset({Endpoint(f"127.0.0.1:{port}")})))
        await pool.start(60)
        running.child.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(40), pool.replica() as replica:
                await decoder_pb2_grpc.DecoderStub(replica.channel).Decode(request())
            raise AssertionError("a stopped process answered")
        except StageUnavailable:
            pass
        running.child.send_signal(signal.SIGCONT)
        await pool.wait_ready(60)
        await pool.close()


async def test_unreachable_collector_does_not_delay_the_exit() -> None:
    async with process(otlp_endpoint="http://127.0.0.1:9") as running:
        port = (await running.logged("ready"))["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await decoder_pb2_grpc.DecoderStub(channel).Decode(request(), timeout=60)
        running.child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.end(), 30) == 0
