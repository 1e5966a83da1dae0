"""After an outage a client finds its gateway within seconds."""

from __future__ import annotations

from typing import Any

import pytest
from hart import AsyncClient, Client


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_the_bounds_hold_for_both_clients(kind: Any) -> None:
    options = dict(kind("127.0.0.1:9")._connection.options(1024))
    assert options["grpc.max_reconnect_backoff_ms"] <= 3000
