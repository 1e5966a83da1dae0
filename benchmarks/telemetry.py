"""What telemetry costs: a cluster with every trace exported and metrics scraped, over one without, in turn in one run.

    python -m benchmarks.telemetry [--seconds 10] [--stretches 2] [--checkpoint FOLDER] [--threads 1]

Two clusters export every span to a collector on this machine (OTLP over gRPC, a process of its own, so that receiving
counts too) and are scraped every 15 seconds, as in the chart; two others run with OTEL_SDK_DISABLED. There are two of
each, because any two clusters differ by about one percent. They draw by turns, one stretch at a time: spans leave every
five seconds, and turns of single images would pay for the pauses too. Before the next stretch the last one's spans have
left. The text encoder's cache is off. Prints each cluster's median and mean, the ratio of the means with
its 95% interval (bootstrap), and CPU time per image. Exit code 1 if that ratio is over 1.02.
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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import hart
import psutil

from benchmarks.harness.cli import run_command
from benchmarks.harness.local_cluster import FAILURES, local_cluster
from runtime.outbound import opener

MAX_RATIO = 1.02
WARM_UP = 2
REST_SECONDS = 5.5
"""Until the last spans are exported."""
PROMPT = "a red heart"
SCRAPE_SECONDS = 15.0
OFF = "OTEL_SDK_DISABLED"


# -- the collector, a process of its own -----------------------------------------------------------------------------


def collect() -> None:
    """Receive spans until standard input ends. Prints the port first, and the number of spans at the end."""
    from concurrent import futures

    import grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

    received: list[int] = []

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            received.extend(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)
    print(sum(received), flush=True)


class Collector:
    """The collector's process."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", "benchmarks.telemetry", "--collect"]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.endpoint = f"http://127.0.0.1:{self._read()}"

    def _read(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())

    def end(self) -> int:
        """Stop it and return the number of spans received."""
        assert self._process.stdin
        self._process.stdin.close()
        count = self._read()
        self._process.wait(10)
        return count


# -- what is measured ------------------------------------------------------------------------------------------------


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Processes that the block starts run without OpenTelemetry's SDK, by its standard switch."""
    os.environ[OFF] = "true"
    try:
        yield
    finally:
        del os.environ[OFF]


@contextmanager
def scraped(endpoint: str) -> Iterator[None]:
    """Scrape the cluster's metrics as Prometheus does, while the block runs."""
    first = int(endpoint.rpartition(":")[2]) + 1000
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPE_SECONDS):
            for port in range(first, first + 5):
                opener(f"http://127.0.0.1:{port}").open(f"http://127.0.0.1:{port}/metrics", timeout=5).read()

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
    """One cluster with its measurements."""

    name: str
    endpoint: str
    seconds: list[float] = field(default_factory=list)
    """Of each image."""
    cpu: float = 0.0
    """CPU seconds while it drew."""


def measure(clusters: Sequence[Cluster], stretches: int, seconds: float) -> None:
    """Let each draw for one stretch at a time, forward and backward by turns."""
    with ExitStack() as stack:
        clients = {c.name: stack.enter_context(hart.Client(c.endpoint)) for c in clusters}
        for stretch in range(stretches):
            for cluster in clusters if stretch % 2 else reversed(clusters):
                client = clients[cluster.name]
                for seed in range(WARM_UP):
                    client.generate(PROMPT, seed=seed)
                before, end = cpu_seconds(cluster.endpoint), time.monotonic() + seconds
                while (begun := time.monotonic()) < end:
                    client.generate(PROMPT, seed=len(cluster.seconds))
                    cluster.seconds.append(time.monotonic() - begun)
                cluster.cpu += cpu_seconds(cluster.endpoint) - before
                time.sleep(REST_SECONDS)


def interval(full: list[float], none: list[float]) -> tuple[float, float]:
    """95% bootstrap interval of the ratio of the means."""
    source = random.Random(0)

    def mean(values: list[float]) -> float:
        return statistics.fmean(source.choices(values, k=len(values)))

    ratios = sorted(mean(full) / mean(none) for _ in range(2000))
    return ratios[49], ratios[1949]


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of a stretch")
    parser.add_argument("--stretches", type=int, default=2, help="of each cluster")
    parser.add_argument("--checkpoint", default="", help="default: the bundled one")
    parser.add_argument("--threads", type=int, default=1, help="of torch, per process; 0: torch's choice")
    parser.add_argument("--collect", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.collect:
        collect()
        return 0
    collector = Collector()
    plain = {"cache_bytes": "0", "torch_threads": str(chosen.threads)}
    traced = {**plain, "otlp_endpoint": collector.endpoint}
    with ExitStack() as stack:
        clusters: list[Cluster] = []
        for name in ("none 1", "full 1", "full 2", "none 2"):
            full = name.startswith("full")
            with nullcontext() if full else without_telemetry():
                started = local_cluster(chosen.checkpoint, None, **(traced if full else plain))
                clusters.append(Cluster(name, stack.enter_context(started)))
            if full:
                stack.enter_context(scraped(clusters[-1].endpoint))
        measure(clusters, chosen.stretches, chosen.seconds)
        load = os.getloadavg()[0]
    spans = collector.end()
    print(f"{chosen.stretches} stretches of {chosen.seconds:g} s each; load {load:.1f}; {spans} spans received")
    for cluster in clusters:
        measured = {
            "median": statistics.median(cluster.seconds),
            "mean": statistics.fmean(cluster.seconds),
            "CPU": cluster.cpu / len(cluster.seconds),
        }
        shown = "   ".join(f"{name} {1e3 * value:6.1f} ms" for name, value in measured.items())
        print(f"  telemetry {cluster.name:<8}{len(cluster.seconds):5} images   {shown}")
    with_, without = ([s for c in clusters if c.name.startswith(k) for s in c.seconds] for k in ("full", "none"))
    ratio, (low, high) = statistics.fmean(with_) / statistics.fmean(without), interval(with_, without)
    print(f"  time per image, ratio of the means {ratio:.4f} (95%: {low:.4f} to {high:.4f})")
    used = [sum(c.cpu for c in clusters if c.name.startswith(k)) for k in ("full", "none")]
    print(f"  CPU per image, ratio {used[0] / len(with_) / (used[1] / len(without)):.4f}")
    if spans < len(with_) * 20:
        print("  spans are missing: the figures are not valid")
        return 1
    return judged(ratio)


def judged(ratio: float) -> int:
    """The exit code; prints a line if telemetry costs too much."""
    if ratio <= MAX_RATIO:
        return 0
    print(f"  telemetry costs too much: {ratio:.4f} is over {MAX_RATIO}")
    return 1


if __name__ == "__main__":
    sys.exit(run_command(main, *FAILURES))
