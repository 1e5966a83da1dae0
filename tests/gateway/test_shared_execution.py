"""Work and its repeats: nothing is missed, nothing is done twice, nothing is kept for ever."""

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
    await asyncio.sleep(0)  # the work's own callbacks come in the loop's next round
    return found


async def test_a_watcher_that_comes_late_misses_nothing():
    more = asyncio.Event()

    async def draw(emit: Any) -> None:
        for scale in range(3):
            emit(event(scale))
        await more.wait()
        emit(event(3))

    work = SharedExecution(draw)
    first = asyncio.create_task(scales(work))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(scales(work))
    more.set()
    assert await first == await second == [0, 1, 2, 3]
    assert await scales(work) == [0, 1, 2, 3]


async def test_work_ends_with_its_last_watcher_and_no_earlier():
    ended = asyncio.Event()

    async def draw(emit: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    work = SharedExecution(draw)
    watchers = [asyncio.create_task(scales(work)) for _ in range(2)]
    await asyncio.sleep(0.01)
    await cancel(watchers[0])
    assert not ended.is_set()
    assert work.running
    await cancel(watchers[1])
    assert not work.running
    await asyncio.wait_for(ended.wait(), 60)


async def test_a_failure_reaches_every_watcher():
    async def draw(emit: Any) -> None:
        await asyncio.sleep(0.01)
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


async def test_a_repeat_finds_the_first_work_until_its_time_is_over():
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


async def test_the_same_id_with_other_content_is_refused():
    repeats = IdempotencyCache(600, 10_000)
    repeats.remember(("", "r"), asked(), await finished())
    with pytest.raises(InvalidRequest, match="request_id"):
        repeats.join(("", "r"), asked(guidance=3))


async def test_another_caller_with_the_same_id_has_work_of_its_own():
    repeats = IdempotencyCache(600, 10_000)
    repeats.remember(("one", "r"), asked(), await finished())
    assert repeats.join(("two", "r"), asked()) is None


async def test_answers_beyond_the_byte_limit_go_the_oldest_first():
    repeats = IdempotencyCache(600, 5000)
    for name in "abc":
        work = await finished(1000)
        repeats.remember(("", name), asked(), work)
        await scales(work)
    assert repeats.join(("", "a"), asked()) is None
    assert repeats.join(("", "b"), asked()) is not None
    assert repeats.join(("", "c"), asked()) is not None


async def test_an_answer_over_the_byte_limit_is_not_kept():
    repeats = IdempotencyCache(600, 100)
    work = await finished(1000)
    repeats.remember(("", "r"), asked(), work)
    await scales(work)
    assert repeats.join(("", "r"), asked()) is None


async def test_a_failure_is_not_repeated():
    repeats = IdempotencyCache(600, 1000)

    async def draw(emit: Any) -> None:
        raise ValueError

    work = SharedExecution(draw)
    repeats.remember(("", "r"), asked(), work)
    with pytest.raises(ValueError):  # noqa: PT011 - any will do
        await scales(work)
    assert repeats.join(("", "r"), asked()) is None


async def test_work_that_was_given_up_is_not_joined():
    repeats = IdempotencyCache(600, 1000)

    async def draw(emit: Any) -> None:
        await asyncio.sleep(60)

    work = SharedExecution(draw)
    repeats.remember(("", "r"), asked(), work)
    watcher = asyncio.create_task(scales(work))
    await asyncio.sleep(0.01)
    watcher.cancel()
    await asyncio.sleep(0)
    assert repeats.join(("", "r"), asked()) is None
