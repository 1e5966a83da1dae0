"""Fixtures: a decoder with a fake engine on a real server in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.runtime.support import Launch, Running, end, start


@pytest.fixture
async def served() -> AsyncIterator[Running]:
    running = await start()
    yield running
    await end(running)


@pytest.fixture
async def launch(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Launch]:
    """`start` with a test's own settings, stopped after the test. The probe's time limit is long: server and probe
    share the process, and a paused machine is no hanging replica."""
    monkeypatch.setattr("runtime.calls.replica.ANSWER_SECONDS", 60.0)
    started: list[Running] = []

    async def launch_one(*args: Any, **kwargs: Any) -> Running:
        started.append(await start(*args, **kwargs))
        return started[-1]

    yield launch_one
    for running in started:
        await end(running)
