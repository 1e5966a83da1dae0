"""An asyncio client belongs to one event loop, and says so in another."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hart import AsyncClient

from tests.client.conftest import Gateway

pytestmark = pytest.mark.filterwarnings("error")


async def stream(client: AsyncClient) -> None:
    async for _ in client.stream("a red heart"):
        pass


USES: list[Callable[[AsyncClient], Coroutine[Any, Any, Any]]] = [
    lambda client: client.generate("a red heart"),
    lambda client: client.describe(),
    lambda client: client.status(),
    stream,
]


@pytest.mark.parametrize("use", USES, ids=["generate", "describe", "status", "stream"])
def test_a_second_loop_is_refused_in_a_sentence(gateway: Gateway, use: Any) -> None:
    client = AsyncClient(gateway.endpoint)
    asyncio.run(client.status())
    with pytest.raises(ValueError, match="belongs to another event loop"):
        asyncio.run(use(client))
    gc.collect()  # a coroutine that was never awaited would warn here


def test_a_client_whose_loop_has_ended_can_be_closed(gateway: Gateway) -> None:
    client = AsyncClient(gateway.endpoint)
    asyncio.run(client.status())
    asyncio.run(client.close())
    with pytest.raises(ValueError, match="is closed"):
        asyncio.run(client.status())


def test_a_client_that_was_never_used_belongs_to_the_first_loop_that_uses_it(gateway: Gateway) -> None:
    client = AsyncClient(gateway.endpoint)

    async def used() -> None:
        async with client:
            assert (await client.status()).inflight == 1

    asyncio.run(used())


def test_a_loop_beside_the_clients_own_may_not_close_it(gateway: Gateway) -> None:
    async def both() -> None:
        async with AsyncClient(gateway.endpoint) as client:
            await client.status()
            with pytest.raises(ValueError, match="another event loop"):
                await asyncio.to_thread(lambda: asyncio.run(client.close()))
            assert (await client.status()).inflight == 1

    asyncio.run(both())
