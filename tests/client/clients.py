"""The same call on both typed clients."""

from __future__ import annotations

import asyncio
from typing import Any

import hart

from tests.client.conftest import Gateway


def both(gateway: Gateway, action: str, *arguments: Any, **options: Any) -> list[Any]:
    """[outcome of Client, outcome of AsyncClient]; a stream's outcome is its list of events."""

    async def asynchronous() -> Any:
        async with hart.AsyncClient(gateway.endpoint) as client:
            if action == "stream":
                return [event async for event in client.stream(*arguments, **options)]
            return await getattr(client, action)(*arguments, **options)

    with hart.Client(gateway.endpoint) as client:
        outcome = getattr(client, action)(*arguments, **options)
        if action == "stream":
            outcome = list(outcome)
    return [outcome, asyncio.run(asynchronous())]
