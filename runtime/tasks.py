"""Awaitables side by side, and their end. Knows nothing of what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


async def together(*parts: Awaitable[T]) -> list[T]:
    """The results of all parts, side by side. The first failure cancels the others, and is raised when they have
    ended."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel(*tasks)


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs, and wait until it has ended. Failures of what had ended are the caller's no more."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in tasks:
        if not task.cancelled():
            task.exception()
