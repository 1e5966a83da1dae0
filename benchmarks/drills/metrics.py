"""Metrics and resources of a process, as an operator reads them. Knows no meaning of a metric."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.harness.processes import Process
from runtime.outbound import opener


@dataclass(frozen=True)
class Samples:
    """One scrape."""

    values: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series of this name with these labels; 0 where there is none."""
        required = set(labels.items())
        return sum(value for (found, own), value in self.values.items() if found == name and required <= own)


async def scrape(process: Process) -> Samples:
    """The process's metrics now. Raises OSError where it does not answer."""
    return await asyncio.to_thread(_scrape, process.metrics_port)


def _scrape(port: int) -> Samples:
    url = f"http://127.0.0.1:{port}/metrics"
    with opener(url).open(url, timeout=60) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return Samples(found)


async def total(processes: Iterable[Process], name: str, **labels: str) -> float:
    """The same summed over processes."""
    return sum(samples.total(name, **labels) for samples in await asyncio.gather(*map(scrape, processes)))


@dataclass(frozen=True)
class Resources:
    """What a process holds."""

    memory: int
    """Resident bytes."""
    files: int
    """Open file descriptors; connections are among them."""
    threads: int
    channels: int
    """Established TCP connections."""


def resources(process: Process) -> Resources:
    """What the process holds now."""
    seen = psutil.Process(process.process.pid)
    with seen.oneshot():
        channels = sum(c.status == psutil.CONN_ESTABLISHED for c in seen.net_connections("tcp"))
        return Resources(seen.memory_info().rss, seen.num_fds(), seen.num_threads(), channels)
