"""Fixtures: a decoder with a fake engine on a real server in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.runtime.support import Running, end, start


@pytest.fixture
async def served() -> AsyncIterator[Running]:
    running = await start()
    yield running
    await end(running)


@pytest.fixture
async def launch(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """`start`, for tests that want their own settings; what it started is ended after the test. It shares the process
    with who probes it: a pause of the machine does not mean that it hangs."""
    monkeypatch.setattr("runtime.calls.replica.ANSWER_SECONDS", 60.0)
    started: list[Running] = []

    async def launch_one(*args: Any, **kwargs: Any) -> Running:
        started.append(await start(*args, **kwargs))
        return started[-1]

    yield launch_one
    for running in started:
        await end(running)
