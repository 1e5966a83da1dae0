"""What the tests of all stages share."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from tests.services.support import assemblies, serving

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tiny tensors, and neighbours on the machine


@pytest.fixture(scope="session")
def folder(tiny_checkpoint: object) -> str:
    """The tiny checkpoint as a setting."""
    return str(tiny_checkpoint)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stages(folder: str) -> AsyncIterator[SimpleNamespace]:
    """All four stages with their usual settings, one after another by name."""
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
async def make_rig() -> AsyncIterator[Any]:
    """Makes a scheduler on an engine whose every step the test permits."""
    from tests.services.harness import making

    async with making() as make:
        yield make
