"""One cluster of real processes for the whole session: importing torch takes five CPU seconds in each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hart
import pytest

from benchmarks.harness.processes import STAGES, Cluster, Process, running_cluster
from tests.e2e.collector import Collector, collecting

if TYPE_CHECKING:
    from model.pipeline import Pipeline

GENERATORS = 2


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """The collector of every process's spans."""
    with collecting() as running:
        yield running


@pytest.fixture(scope="session")
def cluster(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Cluster]:
    """Two generators, one of everything else, and a gateway; all are traced."""
    logs = tmp_path_factory.mktemp("logs")
    settings = {name: {"otlp_endpoint": collector.endpoint} for name in (*STAGES, "gateway")}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds, instead of five seconds
        with running_cluster(logs, tiny_checkpoint, {"ar_generator": GENERATORS}, settings) as running:
            yield running


@pytest.fixture(scope="module")
def survives(cluster: Cluster) -> Iterator[None]:
    """Every process still runs and serves after the module's tests."""
    pids = [process.process.pid for process in cluster.processes()]
    yield
    assert all(process.await_ready(60).alive() for process in cluster.processes())
    assert pids == [process.process.pid for process in cluster.processes()]
    with hart.Client(cluster.endpoint) as client:
        assert client.generate("a red heart", seed=1)


@pytest.fixture(scope="session")
def client(cluster: Cluster) -> Iterator[hart.Client]:
    """The installed client, connected to the gateway."""
    with hart.Client(cluster.endpoint) as found:
        yield found


@pytest.fixture(scope="session")
def oip_gateway(cluster: Cluster) -> Iterator[Process]:
    """A gateway that reaches every stage by the Open Inference Protocol."""
    where = {
        stage: ",".join(f"oip://{process.address}/{stage}" for process in replicas)
        for stage, replicas in cluster.stages.items()
    }
    with cluster.another_gateway(**where) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def local_pipeline(tiny_checkpoint: Path) -> Pipeline:
    """The same checkpoint in this process."""
    import torch

    from model.pipeline import Pipeline

    torch.set_num_threads(1)  # as in the cluster's processes
    return Pipeline.load(tiny_checkpoint)
