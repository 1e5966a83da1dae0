"""The order of waiting work in the batcher."""

from __future__ import annotations

import asyncio

import pytest

from tests.runtime.support import until
from tests.runtime.test_batcher import Engine, batcher, engine

__all__ = ["engine"]  # a fixture


@pytest.mark.parametrize("preview_first", [True, False])
async def test_work_of_a_higher_priority_overtakes_what_waits(engine: Engine, preview_first: bool) -> None:
    batching = batcher(engine)
    engine.release.clear()
    running = asyncio.create_task(batching.submit(1, key="busy"))
    await until(lambda: engine.batches == [[1]])
    waiting = [(2, "preview", 0), (3, "preview", 0), (10, "image", 1), (11, "image", 1)]
    tasks = [
        asyncio.create_task(batching.submit(item, key=key, priority=priority))
        for item, key, priority in (waiting if preview_first else waiting[::-1])
    ]
    await until(lambda: len(batching._waiting) == len(waiting))
    engine.release.set()
    results = await asyncio.gather(running, *tasks)
    assert sorted(result.value for result in results) == [2, 4, 6, 20, 22]
    assert [sorted(batch) for batch in engine.batches] == [[1], [10, 11], [2, 3]]
    await batching.close()
