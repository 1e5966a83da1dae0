"""The real cluster: the product's gateway and stages, with engines that sleep."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness.processes import ROOT, Cluster, Process, running_cluster
from planner.fleet import Fleet
from planner.profile import Profile, StageProfile

CHECKPOINT = ROOT / "checkpoints" / "emoji-128"
"""Gives the shapes only."""


class SleepingProcess(Process):
    """A stage whose engine sleeps."""

    @property
    def module(self) -> str:
        """The module for `python -m`."""
        return f"benchmarks.sleeping.{self.name}"


@contextmanager
def sleeping_cluster(profile: Profile, fleet: Fleet) -> Iterator[Cluster]:
    """The cluster of the fleet's replicas behind one gateway, ready."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "profile.json").write_text(json.dumps({"stages": _tables(profile)}))
        os.environ["SLEEPING_PROFILE"] = str(folder / "profile.json")
        try:
            settings = {stage: _settings(stage, found) for stage, found in profile.stages.items()}
            settings["gateway"] = {"log_level": "WARNING", "idempotency_cache_bytes": "0"}
            with running_cluster(folder, CHECKPOINT, fleet.replicas, settings, kind=SleepingProcess) as cluster:
                yield cluster
        finally:
            del os.environ["SLEEPING_PROFILE"]


def cpu_seconds(process: Process) -> float:
    """CPU time of a process so far."""
    times = psutil.Process(process.process.pid).cpu_times()
    return float(times.user + times.system)


def _tables(profile: Profile) -> dict[str, Any]:
    """Every batch size's seconds, by stage: the engines interpolate nothing."""
    result: dict[str, Any] = {}
    for name, stage in profile.stages.items():
        result[name] = {"batch": [stage.batch.seconds(n) for n in range(1, stage.max_batch + 1)]}
    generator, decoder = profile.stages["ar_generator"], profile.stages["decoder"]
    sizes = zip(generator.scales, generator.max_batch_per_scale, strict=True)
    result["ar_generator"] |= {
        "scales": [[cost.seconds(n) for n in range(1, widest + 1)] for cost, widest in sizes],
        "max_batch_per_scale": list(generator.max_batch_per_scale),
        "slots": generator.slots,
    }
    result["decoder"]["encode_seconds"] = dict(decoder.encode_seconds)
    return result


def _settings(stage: str, profile: StageProfile) -> Mapping[str, str]:
    found = {
        "log_level": "WARNING",
        "torch_threads": "1",
        "max_queued_requests": str(profile.queue_limit),
        "max_batch": str(profile.max_batch),
    }
    if stage == "ar_generator":
        found["max_starvation_seconds"] = str(profile.starvation_seconds)
    if stage == "text_encoder":
        found["cache_bytes"] = "0"
    if stage == "decoder":
        found["encode_threads"] = str(profile.encode_threads)
    return found
