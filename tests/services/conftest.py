"""Fixtures of the stages' tests."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from tests.services.support import assemblies, serving

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tiny tensors, and a shared machine


@pytest.fixture(scope="session")
def folder(tiny_checkpoint: object) -> str:
    """The tiny checkpoint as a setting."""
    return str(tiny_checkpoint)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stages(folder: str) -> AsyncIterator[SimpleNamespace]:
    """All four stages with default settings, by name."""
    async with AsyncExitStack() as stack:
        started = {}
        for name, (build, settings) in assemblies().items():
            chosen = settings(checkpoint=folder, port=0)
            started[name] = await stack.enter_async_context(serving(name, build, chosen))
        yield SimpleNamespace(**started)


@pytest.fixture(scope="session")
def pipeline(folder: str) -> Any:
    """The same model in one process."""
    from model.pipeline import Pipeline

    return Pipeline.load(folder)


@pytest.fixture
async def make_harness() -> AsyncIterator[Any]:
    """Makes schedulers on an engine that waits for a permit before each step."""
    from tests.services.harness import harness_factory

    async with harness_factory() as make:
        yield make
