"""runtime.server.concurrency_limit, runtime.server.reflection: limits on concurrent calls and streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from runtime import errors
from runtime.server.call_scope import CallInfo
from runtime.settings import ProcessSettings
from tests.runtime.support import Launch, Running, detail, refusal, request, until


async def test_reflection_lists_what_is_served(served: Running) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answer = await call.read()
    names = {s.name for s in answer.list_services_response.service}
    assert {"hart.v1.Decoder", "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names


async def test_reflection_streams_are_bounded_and_released(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.server.reflection.MAX_STREAMS", 2)
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    streams = [stub.ServerReflectionInfo() for _ in range(2)]
    for stream in streams:
        await stream.write(question)
        await stream.read()
    code, _, text = await refusal(anext(aiter(stub.ServerReflectionInfo(iter([question])))))
    assert (code, text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many reflection streams")
    for stream in streams:
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
    assert await anext(aiter(stub.ServerReflectionInfo(iter([question]))))


async def test_calls_over_the_limit_are_refused_but_health_is_answered(launch: Launch) -> None:
    running = await launch(ProcessSettings(port=0, max_concurrent_calls=4))
    stalled: list[Any] = [running.channel.stream_unary("/hart.v1.Decoder/Decode")(timeout=60) for _ in range(4)]
    await until(lambda: running.app._interceptor.working == 4)
    health = health_pb2_grpc.HealthStub(running.channel)
    for _ in range(3):
        code, proto, _ = await refusal(running.stub.Decode(request(), timeout=60))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        info = detail(proto, error_details_pb2.ErrorInfo)
        assert info.metadata["setting"] == "HART_MAX_CONCURRENT_CALLS"
        assert (await health.Check(health_pb2.HealthCheckRequest(service="hart.v1.Decoder"), timeout=60)).status == 1
    for call in stalled:
        call.cancel()
    await until(lambda: running.app._interceptor.working == 0)
    assert (await running.stub.Decode(request(), timeout=60)).image == b"1.0"


async def test_unauthenticated_calls_do_not_count_against_the_limit(launch: Launch) -> None:
    release = asyncio.Event()

    @contextlib.asynccontextmanager
    async def guard(call: CallInfo) -> AsyncIterator[None]:
        if not call.header("authorization"):
            await release.wait()
            raise errors.Unauthenticated("no valid API key")
        yield

    limits = ProcessSettings(port=0, max_concurrent_calls=1)
    running = await launch(limits, before_start=lambda app: app.guard(guard))
    unknown = [running.stub.Decode(request(), timeout=60) for _ in range(3)]
    await until(lambda: running.app._interceptor.working == 3)
    key = (("authorization", "Bearer right"),)
    assert (await running.stub.Decode(request(), timeout=60, metadata=key)).image == b"1.0"
    release.set()
    for foreign in unknown:
        assert (await refusal(foreign))[0] is grpc.StatusCode.UNAUTHENTICATED
