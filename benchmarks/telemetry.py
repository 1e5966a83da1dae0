"""What telemetry costs: a cluster with every trace sent and metrics scraped over one without any, in turn in one run.

    python -m benchmarks.telemetry [--pictures 60] [--checkpoint FOLDER] [--threads 1]

Two clusters send every span to a collector on this machine (OTLP over gRPC, a process of its own, so that receiving
counts too) and are scraped every 15 seconds, as the chart has it; two others run with OTEL_SDK_DISABLED: two of each,
for any two clusters differ by a percent or so by themselves. Each seed is drawn by all four, one after the other, in
changing order; the text encoder's cache is off. Prints each cluster's median, the median of the rounds' ratios with its
95% interval (bootstrap), and CPU time a picture. Exit code 1 when that median is over 1.02.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import hart
import psutil

from benchmarks.local_cluster import local_cluster

MOST_RATIO = 1.02
WARM_UP = 4
SCRAPE_SECONDS = 15.0
OFF = "OTEL_SDK_DISABLED"


# -- the collector, a process of its own -----------------------------------------------------------------------------


def collect() -> None:
    """Receive until the standard input ends; says the port first, and at the end how many spans came."""
    from concurrent import futures

    import grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

    came: list[int] = []

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            came.extend(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)
    print(sum(came), flush=True)


class Collector:
    """The process, seen from here."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", "benchmarks.telemetry", "--collect"]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.endpoint = f"http://127.0.0.1:{self._read()}"

    def _read(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())

    def end(self) -> int:
        """Stop it; how many spans it has received."""
        assert self._process.stdin
        self._process.stdin.close()
        count = self._read()
        self._process.wait(10)
        return count


# -- what is measured ------------------------------------------------------------------------------------------------


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Processes started meanwhile run without OpenTelemetry's SDK: its standard switch."""
    os.environ[OFF] = "true"
    try:
        yield
    finally:
        del os.environ[OFF]


@contextmanager
def scraped(endpoint: str) -> Iterator[None]:
    """The cluster's metrics are read as Prometheus would."""
    first = int(endpoint.rpartition(":")[2]) + 1000
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPE_SECONDS):
            for port in range(first, first + 5):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def cpu_seconds(endpoint: str) -> float:
    """CPU time so far of the cluster's five processes."""
    first = int(endpoint.rpartition(":")[2])
    listening = {c.laddr[1]: c.pid for c in psutil.net_connections("tcp") if c.laddr and c.status == psutil.CONN_LISTEN}
    times = [psutil.Process(listening[port]).cpu_times() for port in range(first, first + 5)]
    return sum(t.user + t.system for t in times)


@dataclass
class Cluster:
    """One cluster and what was measured of it."""

    name: str
    endpoint: str
    seconds: list[float] = field(default_factory=list)
    """Of each picture."""
    cpu: float = 0.0
    """CPU seconds a picture."""


def measure(clusters: Sequence[Cluster], pictures: int) -> None:
    """Draw every seed by each cluster in turn."""
    before = dict.fromkeys((c.name for c in clusters), 0.0)
    with ExitStack() as stack:
        clients = {c.name: stack.enter_context(hart.Client(c.endpoint)) for c in clusters}
        for number in range(-WARM_UP, pictures):
            if number == 0:
                before = {c.name: cpu_seconds(c.endpoint) for c in clusters}
            turn = number % len(clusters)
            for cluster in (*clusters[turn:], *clusters[:turn]):
                begun = time.perf_counter()
                clients[cluster.name].generate("a red heart", seed=number + WARM_UP)
                if number >= 0:
                    cluster.seconds.append(time.perf_counter() - begun)
    for cluster in clusters:
        cluster.cpu = (cpu_seconds(cluster.endpoint) - before[cluster.name]) / pictures


def interval(ratios: list[float]) -> tuple[float, float]:
    """95% bootstrap interval of the median."""
    source = random.Random(0)
    medians = sorted(statistics.median(source.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[49], medians[1949]


def main() -> int:
    """Follow the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--checkpoint", default="", help="default: the bundled one")
    parser.add_argument("--threads", type=int, default=1, help="of torch, per process; 0: torch's choice")
    parser.add_argument("--collect", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.collect:
        collect()
        return 0
    collector = Collector()
    silent = {"cache_bytes": "0", "torch_threads": str(chosen.threads)}
    telling = {**silent, "otlp_endpoint": collector.endpoint}
    with ExitStack() as stack:
        clusters: list[Cluster] = []
        for name in ("none 1", "full 1", "full 2", "none 2"):
            told = name.startswith("full")
            with nullcontext() if told else without_telemetry():
                started = local_cluster(chosen.checkpoint, None, **(telling if told else silent))
                clusters.append(Cluster(name, stack.enter_context(started)))
            if told:
                stack.enter_context(scraped(clusters[-1].endpoint))
        begun = time.monotonic()
        measure(clusters, chosen.pictures)
        wall, load = time.monotonic() - begun, os.getloadavg()[0]
    spans = collector.end()
    print(f"{chosen.pictures} pictures by each, in turn, {wall:.0f} s; load {load:.1f}; {spans} spans received")
    for cluster in clusters:
        median, fastest = statistics.median(cluster.seconds), min(cluster.seconds)
        shown = f"median {1e3 * median:7.1f} ms   fastest {1e3 * fastest:7.1f} ms   CPU {1e3 * cluster.cpu:7.1f} ms"
        print(f"  telemetry {cluster.name:<8} {shown}")
    full, none = ([c for c in clusters if c.name.startswith(kind)] for kind in ("full", "none"))
    ratios = [sum(c.seconds[n] for c in full) / sum(c.seconds[n] for c in none) for n in range(chosen.pictures)]
    ratio, (low, high) = statistics.median(ratios), interval(ratios)
    print(f"  time a picture, median of the rounds' ratios {ratio:.4f} (95%: {low:.4f} to {high:.4f})")
    print(f"  CPU a picture, ratio {sum(c.cpu for c in full) / sum(c.cpu for c in none):.4f}")
    if spans < 2 * chosen.pictures * 20:
        print("  not every span came: this measures something else")
        return 1
    return 0 if ratio <= MOST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
