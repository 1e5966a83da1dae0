"""runtime.tasks: concurrent tasks, their results and failures."""

from __future__ import annotations

import asyncio

import pytest

from runtime.tasks import together


async def test_results_keep_the_order_of_the_arguments() -> None:
    last = asyncio.Event()

    async def part(number: int) -> int:
        last.set() if number == 2 else await last.wait()
        return number

    assert await together(*(part(number) for number in range(3))) == [0, 1, 2]


async def test_failure_is_raised_after_the_others_have_ended() -> None:
    begun, ended = asyncio.Event(), []

    async def slow() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # cleanup that awaits
            ended.append("slow")

    async def broken() -> None:
        await begun.wait()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await together(slow(), broken())
    assert ended == ["slow"]
