"""A proxy in the environment is not asked for this machine, and is named where it was asked in vain."""

from __future__ import annotations

import asyncio
from typing import Any

import hart as package
import pytest

from tests.client.conftest import Gateway


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "localhost:{}", "dns:///127.0.0.1:{}", "ipv4:127.0.0.1:{}"])
def test_this_machine_is_called_without_a_proxy(gateway: Gateway, proxied: None, form: str) -> None:
    endpoint = form.format(gateway.endpoint.rpartition(":")[2])
    with package.Client(endpoint) as client:
        assert client.status().inflight == 1

    async def asked() -> None:
        async with package.AsyncClient(endpoint) as client:
            assert (await client.status()).inflight == 1

    asyncio.run(asked())


def test_the_command_draws_whatever_the_proxy(hart: Any, proxied: None) -> None:
    assert hart("generate", "a red heart").exit_code == 0
