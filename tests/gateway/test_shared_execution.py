"""gateway.request.shared_execution, gateway.request.idempotency: subscriptions, repeats, eviction."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from hart.v1 import images_pb2

from gateway.request.idempotency import IdempotencyCache
from gateway.request.shared_execution import SharedExecution
from gateway.request.validation import ImageRequest, validate
from runtime.errors import InvalidRequest
from runtime.tasks import cancel


def event(scale: int, size: int = 0) -> images_pb2.GenerateEvent:
    if size:
        return images_pb2.GenerateEvent(image=images_pb2.Image(data=bytes(size)))
    return images_pb2.GenerateEvent(progress=images_pb2.Progress(scale=scale))


async def scales(work: SharedExecution) -> list[int]:
    async with aclosing(work.subscribe()) as events:
        found = [event.progress.scale async for event in events]
    await asyncio.sleep(0)  # the execution's callbacks run in the loop's next iteration
    return found


async def test_late_subscriber_gets_every_event() -> None:
    emitted, more = asyncio.Event(), asyncio.Event()

    async def draw(emit: Any) -> None:
        for scale in range(3):
            emit(event(scale))
        emitted.set()
        await more.wait()
        emit(event(3))

    work = SharedExecution(draw)
    first = asyncio.create_task(scales(work))
    await asyncio.wait_for(emitted.wait(), 60)
    second = asyncio.create_task(scales(work))
    more.set()
    assert await first == await second == [0, 1, 2, 3]
    assert await scales(work) == [0, 1, 2, 3]


async def test_execution_is_cancelled_with_its_last_subscriber() -> None:
    ended = asyncio.Event()

    async def draw(emit: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    work = SharedExecution(draw)
    watchers = [asyncio.create_task(scales(work)) for _ in range(2)]
    await asyncio.sleep(0)  # both have subscribed
    await cancel(watchers[0])
    assert not ended.is_set()
    running = [work.running]
    await cancel(watchers[1])
    running.append(work.running)
    assert running == [True, False]
    await asyncio.wait_for(ended.wait(), 60)


async def test_failure_reaches_every_subscriber() -> None:
    async def draw(emit: Any) -> None:
        await asyncio.sleep(0)  # both subscribe meanwhile
        raise ValueError("broken")

    work = SharedExecution(draw)
    found = await asyncio.gather(scales(work), scales(work), return_exceptions=True)
    assert [str(error) for error in found] == ["broken", "broken"]
    assert not work.succeeded


def asked(**fields: Any) -> ImageRequest:
    message = images_pb2.GenerateRequest(**{"prompt": "a", "request_id": "r", **fields})
    return validate(message, None, streams=True)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def finished(size: int = 10) -> SharedExecution:
    async def draw(emit: Any) -> None:
        emit(event(0, size))

    work = SharedExecution(draw)
    await asyncio.sleep(0)
    return work


async def test_repeat_joins_the_first_execution_until_the_ttl() -> None:
    clock = Clock()
    repeats = IdempotencyCache(600, 10_000, clock)
    work = await finished()
    repeats.remember(("", "r"), asked(), work)
    await scales(work)
    assert repeats.join(("", "r"), asked()) is work
    clock.now = 599
    assert repeats.join(("", "r"), asked()) is work
    clock.now = 601
    assert repeats.join(("", "r"), asked()) is None


async def test_same_id_with_other_content_is_refused() -> None:
    repeats = IdempotencyCache(600, 10_000)
    repeats.remember(("", "r"), asked(), await finished())
    with pytest.raises(InvalidRequest, match="request_id"):
        repeats.join(("", "r"), asked(guidance=3))


async def test_same_id_of_another_caller_is_executed_separately() -> None:
    repeats = IdempotencyCache(600, 10_000)
    repeats.remember(("one", "r"), asked(), await finished())
    assert repeats.join(("two", "r"), asked()) is None


async def test_cache_over_its_byte_limit_evicts_the_oldest() -> None:
    repeats = IdempotencyCache(600, 5000)
    for name in "abc":
        work = await finished(1000)
        repeats.remember(("", name), asked(), work)
        await scales(work)
    assert repeats.join(("", "a"), asked()) is None
    assert repeats.join(("", "b"), asked()) is not None
    assert repeats.join(("", "c"), asked()) is not None


async def test_response_over_the_byte_limit_is_not_cached() -> None:
    repeats = IdempotencyCache(600, 100)
    work = await finished(1000)
    repeats.remember(("", "r"), asked(), work)
    await scales(work)
    assert repeats.join(("", "r"), asked()) is None


async def test_failed_execution_is_not_cached() -> None:
    repeats = IdempotencyCache(600, 1000)

    async def draw(emit: Any) -> None:
        raise ValueError

    work = SharedExecution(draw)
    repeats.remember(("", "r"), asked(), work)
    with pytest.raises(ValueError):  # noqa: PT011 - any will do
        await scales(work)
    assert repeats.join(("", "r"), asked()) is None


async def test_cancelled_execution_is_not_joined() -> None:
    repeats = IdempotencyCache(600, 1000)

    async def draw(emit: Any) -> None:
        await asyncio.sleep(60)

    work = SharedExecution(draw)
    repeats.remember(("", "r"), asked(), work)
    watcher = asyncio.create_task(scales(work))
    await asyncio.sleep(0)  # it has subscribed
    watcher.cancel()
    await asyncio.sleep(0)
    assert repeats.join(("", "r"), asked()) is None
