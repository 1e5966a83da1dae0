"""The product's local cluster for the duration of a benchmark. Knows no measurement."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hart.errors import HartError

from benchmarks.harness.cli import ended_by
from benchmarks.harness.ports import free_cluster_port
from cluster import supervisor
from cluster.plan import Plan
from common.stages import STAGES

FAILURES = (supervisor.ClusterError, HartError)
"""Errors of a cluster that does not start, or of a call to it: reported as a sentence."""


@contextmanager
def local_cluster(checkpoint: str = "", replicas: Mapping[str, int] | None = None, **settings: str) -> Iterator[str]:
    """The endpoint of a running cluster, started as `make up` starts it.

    `checkpoint` "": the bundled one; `settings`: HART_<NAME> of every process.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HART_")}
    environment |= {f"HART_{name.upper()}": value for name, value in settings.items()}
    if checkpoint:
        environment["HART_CHECKPOINT"] = str(Path(checkpoint).resolve())
    counts = {stage: (replicas or {}).get(stage, 1) for stage in STAGES}
    folder = tempfile.TemporaryDirectory()
    plan = Plan(free_cluster_port(), Path(folder.name), counts, environment)

    def end() -> None:
        supervisor.down(plan)
        folder.cleanup()

    with ended_by(end):
        supervisor.up(plan)
        yield plan.endpoint
