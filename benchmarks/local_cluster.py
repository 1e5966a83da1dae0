"""A whole cluster on this machine for the length of a benchmark. Knows no measurement."""

from __future__ import annotations

import os
import random
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from hart.errors import HartError

from benchmarks.ending import ended_by
from cluster import supervisor
from cluster.plan import Plan
from common.stages import METRICS_PORT_OFFSET, STAGES

FAILURES = (supervisor.ClusterError, HartError)
"""What may come of a cluster that was asked for in vain, or of asking it."""


@contextmanager
def local_cluster(checkpoint: str = "", replicas: Mapping[str, int] | None = None, **settings: str) -> Iterator[str]:
    """The endpoint of a running cluster. `checkpoint` "": the bundled one; `settings`: HART_<NAME> of every
    process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HART_")}
    environment |= {f"HART_{name.upper()}": value for name, value in settings.items()}
    if checkpoint:
        environment["HART_CHECKPOINT"] = str(Path(checkpoint).resolve())
    counts = {stage: (replicas or {}).get(stage, 1) for stage in STAGES}
    folder = tempfile.TemporaryDirectory()
    plan = Plan(_free_ports(), Path(folder.name), counts, environment)

    def end() -> None:
        supervisor.down(plan)
        folder.cleanup()

    with ended_by(end):
        supervisor.up(plan)
        yield plan.endpoint


def _free_ports() -> int:
    """A port after which there is room for every process and its metrics."""
    while True:
        first = random.randrange(20_000, 30_000, 200)
        if not any(
            _taken(port)
            for port in (
                *range(first, first + 50),
                *range(first + METRICS_PORT_OFFSET, first + METRICS_PORT_OFFSET + 50),
            )
        ):
            return first


def _taken(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
