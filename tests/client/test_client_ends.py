"""hart.client, hart.aio, hart.errors: errors, retries, deadlines, cancellation and close."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import hart
import pytest

from tests.client.conftest import Gateway


@pytest.mark.parametrize("action", ["generate", "stream"])
def test_every_error_becomes_its_type_with_its_attributes(gateway: Gateway, failing: Any, action: str) -> None:
    gateway.failure, kind, facts, _ = failing
    if action == "stream" or kind != "Unavailable":
        gateway.failure.times = 2
    with hart.Client(gateway.endpoint) as client, pytest.raises(hart.HartError) as blocking:
        list(getattr(client, action)("x", request_id="r-9"))

    async def asynchronous() -> None:
        async with hart.AsyncClient(gateway.endpoint) as client:
            if action == "generate":
                await client.generate("x", request_id="r-9")
            else:
                _ = [event async for event in client.stream("x", request_id="r-9")]

    with pytest.raises(hart.HartError) as asynchronously:
        asyncio.run(asynchronous())
    for error in (blocking.value, asynchronously.value):
        assert type(error).__name__ == kind
        assert error.code == gateway.failure.code
        assert error.message == gateway.failure.message
        assert error.request_id == "r-9"
        assert {name: getattr(error, name) for name in facts} == facts


def test_unavailable_call_is_retried_with_the_same_request_id(gateway: Gateway, failing: Any) -> None:
    failure, kind, _, _ = failing
    failure.times = 1
    gateway.failure = failure
    with hart.Client(gateway.endpoint) as client:
        if kind == "Unavailable":
            assert len(client.generate("x")) == 1
            assert len({request.request_id for request in gateway.requests}) == 1
            assert len(gateway.requests) == 2
        else:
            with pytest.raises(hart.HartError):
                client.generate("x")
            assert len(gateway.requests) == 1


def test_missing_server_is_unavailable_within_seconds() -> None:
    start = time.monotonic()
    with pytest.raises(hart.Unavailable):
        hart.Client("127.0.0.1:9").generate("x")
    assert time.monotonic() - start < 20


def test_closing_a_stream_cancels_on_the_server(gateway: Gateway) -> None:
    gateway.hang = True
    with hart.Client(gateway.endpoint) as client:
        events = client.stream("x")
        assert isinstance(next(iter(events)), hart.Accepted)
        assert gateway.started.wait(60)
        events.close()
        assert gateway.cancelled.wait(60)


@pytest.mark.parametrize("action", ["generate", "stream"])
def test_cancelling_the_task_cancels_on_the_server(gateway: Gateway, action: str) -> None:
    gateway.hang = True

    async def scenario() -> None:
        async with hart.AsyncClient(gateway.endpoint) as client:

            async def draw() -> None:
                if action == "generate":
                    await client.generate("x")
                else:
                    _ = [event async for event in client.stream("x")]

            task = asyncio.create_task(draw())
            await asyncio.to_thread(gateway.started.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(gateway.cancelled.wait, 60)

    asyncio.run(scenario())


def test_error_with_malformed_details_keeps_code_and_message() -> None:
    class Broken:
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNAVAILABLE

        def details(self) -> str:
            return "a proxy's words"

        def trailing_metadata(self) -> Any:
            return (("grpc-status-details-bin", b"\xff\xff\xff"),)

    error = hart.errors.from_rpc(Broken())
    assert type(error) is hart.Unavailable
    assert error.message == "a proxy's words"


def test_closed_client_raises_value_error(gateway: Gateway) -> None:
    one = hart.Client(gateway.endpoint)
    one.generate("x")
    one.close()
    one.close()
    for call in (lambda: one.generate("x"), lambda: list(one.stream("x")), one.describe, one.status):
        with pytest.raises(ValueError, match=r"^the client is closed$"):
            call()

    async def asynchronous() -> None:
        two = hart.AsyncClient(gateway.endpoint)
        await two.generate("x")
        await two.close()
        await two.close()
        with pytest.raises(ValueError, match="closed"):
            await two.generate("x")
        with pytest.raises(ValueError, match="closed"):
            _ = [event async for event in two.stream("x")]

    asyncio.run(asynchronous())
    assert len(gateway.requests) == 2


@pytest.mark.parametrize("action", ["generate", "stream"])
def test_closing_the_async_client_ends_calls_but_cancels_no_task(gateway: Gateway, action: str) -> None:
    gateway.hang = True

    async def scenario() -> None:
        client = hart.AsyncClient(gateway.endpoint)

        async def draw() -> str:
            with pytest.raises(hart.Cancelled):
                if action == "generate":
                    await client.generate("x")
                else:
                    _ = [event async for event in client.stream("x")]
            return "went on"

        task = asyncio.create_task(draw())
        await asyncio.to_thread(gateway.started.wait, 60)
        await client.close()
        assert await asyncio.wait_for(task, 60) == "went on"
        assert await asyncio.to_thread(gateway.cancelled.wait, 60)

    asyncio.run(scenario())
