"""Bodies, heads, responses and connections are bounded (gateway.http.exchange, gateway.http.connection)."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest

from gateway.http import connection as module
from gateway.http import exchange
from tests.gateway.calls import holding
from tests.gateway.http.support import PATH, connection, error_of, head, http_front, whole
from tests.gateway.support import until

SMALL = 16 * 2**10


async def test_a_body_over_the_limit_is_refused_whether_its_length_is_known_or_not() -> None:
    async def parts(count: int) -> object:
        for _ in range(count):
            yield b" " * 1000

    async with http_front(max_message_bytes=SMALL) as http:
        headers = {"Content-Type": "application/json"}
        for body in (b" " * (SMALL + 1), b" " * 3 * 2**20, parts(50)):
            response = await http.client.post(PATH, content=body, headers=headers)  # type: ignore[arg-type]
            assert response.status_code == 413
            assert error_of(response)["code"] == "request_too_large"
        assert (await http.generate()).status_code == 200


async def test_a_refused_body_does_not_spoil_the_connection_for_the_next_request() -> None:
    async with http_front(api_keys="alice=a") as http, connection(http.port, whole() + whole()) as (reader, _):
        answers = [await reader.readuntil(b"}}") for _ in range(1)]
        assert all(b"401" in one for one in answers)


async def test_a_body_that_arrives_too_slowly_is_refused() -> None:
    async with http_front(receive_seconds=0.3) as http, connection(http.port, head(100) + b"{") as (reader, _):
        answer = await asyncio.wait_for(reader.read(-1), 10)
        assert b"408 Request Timeout" in answer
        assert b"request_timeout" in answer
        await until(lambda: http.front.app.calls.working == 0)


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\nHost"])
async def test_a_head_that_does_not_arrive_loses_its_connection(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.3)
    async with http_front() as http, connection(http.port, sent) as (reader, _):
        assert await asyncio.wait_for(reader.read(-1), 10) == b""


async def test_a_slow_drip_of_a_head_is_no_way_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.5)
    async with http_front() as http, connection(http.port) as (reader, writer):
        ended = asyncio.ensure_future(reader.read(-1))
        for letter in b"POST / HTTP/1.1\r\nHost: " + b"x" * 100:
            if ended.done():
                break
            writer.write(bytes([letter]))
            await asyncio.sleep(0.05)
        assert ended.done()
        assert ended.exception() is not None or ended.result() == b""


async def test_an_idle_connection_is_kept_and_then_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.3)
    async with http_front(keepalive_seconds=1) as http, connection(http.port, whole()) as (reader, writer):
        await reader.readuntil(b'"model":"tiny"}')
        await asyncio.sleep(0.5)  # longer than a head may take, which has not begun
        writer.write(whole())
        await reader.readuntil(b'"model":"tiny"}')
        assert await asyncio.wait_for(reader.read(-1), 10) == b""


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01 no HTTP\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"]
)
async def test_what_is_no_http_gets_an_error_and_is_closed(sent: bytes) -> None:
    async with http_front() as http, connection(http.port, sent) as (reader, _):
        answer = await asyncio.wait_for(reader.read(-1), 10)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"invalid_request_error" in answer


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"Content-Type": "text/plain"}, "Content-Type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "Content-Type"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, "Content-Encoding"),
    ],
)
async def test_a_body_of_another_kind_is_refused(headers: dict[str, str], param: str) -> None:
    async with http_front() as http:
        response = await http.client.post(PATH, content=b"{}", headers=headers)
    assert (response.status_code, error_of(response)["param"]) == (415, param)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_that_is_not_read_loses_its_connection(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    async with http_front(send_seconds=0.3) as http:
        monkeypatch.setattr(exchange, "SLOWEST_READER", 2**30)
        http.front.stage("decoder").image = b"\x89PNG\r\n\x1a\n" + b"x" * 12 * 2**20
        with socket.create_connection(("127.0.0.1", http.port)) as unread:  # outside of the loop: no byte is read
            unread.sendall(whole(stream=stream))
            await until(lambda: http.front.app.calls.working == 1)
            await until(lambda: http.front.app.calls.working == 0, 20)
            await until(lambda: http.connections == 0, 5)


async def test_one_connection_too_many_closes_the_one_that_is_idle_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 3)
    async with http_front() as http, AsyncExitStack() as stack:
        gate = asyncio.Event()
        http.front.stage("safety").before = holding(gate)
        busy, _ = await stack.enter_async_context(connection(http.port, whole()))
        await until(lambda: http.front.inflight == 1)
        idle = [await stack.enter_async_context(connection(http.port)) for _ in range(3)]
        assert await asyncio.wait_for(idle[0][0].read(-1), 10) == b""
        gate.set()
        assert b"200 OK" in await busy.readline()
        idle[2][1].write(whole())
        assert b"200 OK" in await idle[2][0].readline()


async def test_a_caller_that_does_not_wait_for_its_first_answer_gets_both_in_order() -> None:
    async with http_front() as http, connection(http.port, whole(n=1) + whole(n=0)) as (reader, _):
        assert b"200 OK" in await reader.readline()
        await reader.readuntil(b'"model":"tiny"}')
        assert b"400 Bad Request" in await reader.readline()
