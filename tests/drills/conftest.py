"""One cluster for all short drills, with a transformer slow enough to observe images in progress."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.drills import from_zero, load, shutdown, triton
from benchmarks.drills.cases import References
from benchmarks.drills.harness import SETTINGS, opened
from benchmarks.drills.report import Report
from benchmarks.harness.processes import Cluster, running_cluster

Hold = Callable[..., None]
STALL_SECONDS = 10.0
"""How long a busy machine may stall a process."""


@pytest.fixture(scope="session")
def drill_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two generators, one of everything else, and a gateway."""
    from benchmarks.drills.checkpoint import build  # imports torch

    folder = tmp_path_factory.mktemp("drills")
    with running_cluster(folder, build(folder), {"ar_generator": 2}, SETTINGS) as running:
        yield running


@pytest.fixture(autouse=True)
def tolerate_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relax the drills' time limits by STALL_SECONDS."""
    for drill, name in (
        (load, "HANG_SECONDS"),
        (shutdown, "AT_ONCE"),
        (from_zero, "PUSHED_WITHIN"),
        (triton, "BACK_SECONDS"),
    ):
        monkeypatch.setattr(drill, name, getattr(drill, name) + STALL_SECONDS)


@pytest.fixture(scope="session")
def references() -> References:
    """The reference images, drawn by the first drill."""
    return References()


@pytest.fixture
def holds(drill_cluster: Cluster, references: References) -> Hold:
    """Asserts that every law of a drill holds: `holds(drill, seconds, **options)`."""

    def hold(drill: Callable[..., Any], seconds: float = 0.0, **options: Any) -> None:
        report = Report(drill.__name__)

        async def run() -> None:
            async with opened(drill_cluster, references) as harness:
                await drill(harness, seconds, report, **options)
                await harness.settled()

        asyncio.run(run())
        text = report.end()
        assert report.held, text

    return hold
