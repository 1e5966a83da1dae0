"""What HTTP adds to an image over gRPC, by turns against one cluster: `python -m benchmarks.overhead --http`.

Both clients keep one connection and end with the file's bytes in memory. Each pair has the same prompt and seed, and
the order within pairs alternates. Prints the medians of both and of the differences within pairs.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import statistics
import time
from collections.abc import Callable

from benchmarks.harness.local_cluster import local_cluster
from common.stages import HTTP_PORT_OFFSET

MAX_SECONDS = 0.003
WARM_UP = 5
PATH = "/v1/images/generations"


class HttpClient:
    """Draws over one connection."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port) + HTTP_PORT_OFFSET)

    def generate(self, prompt: str, seed: int) -> bytes:
        """The image file. Raises RuntimeError with the server's text."""
        body = json.dumps({"prompt": prompt, "seed": seed})
        self._connection.request("POST", PATH, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {text.decode()}")
        return base64.b64decode(json.loads(text)["data"][0]["b64_json"])


def pairs(endpoint: str, count: int, prompt: str) -> list[tuple[float, float]]:
    """Seconds over gRPC and over HTTP of the same images."""
    import hart

    found: list[tuple[float, float]] = []
    over_http = HttpClient(endpoint)
    with hart.Client(endpoint) as client:
        for seed in range(WARM_UP + count):
            ways: dict[str, Callable[[], bytes]] = {
                "grpc": lambda s=seed: client.generate(prompt, seed=s)[0].data,  # type: ignore[misc]
                "http": lambda s=seed: over_http.generate(prompt, s),  # type: ignore[misc]
            }
            taken, files = {}, []
            for name in ways if seed % 2 else reversed(ways):
                begun = time.perf_counter()
                files.append(ways[name]())
                taken[name] = time.perf_counter() - begun
            if files[0] != files[1]:
                raise RuntimeError(f"seed {seed}: HTTP returned another file than gRPC")
            found.append((taken["grpc"], taken["http"]))
    return found[WARM_UP:]


def measure(count: int, checkpoint: str, threads: int) -> int:
    """Prints the comparison; the exit code."""
    with local_cluster(checkpoint, torch_threads=str(threads)) as endpoint:
        found = pairs(endpoint, count, "a red heart")
    grpc, http_ = (1e3 * statistics.median(side) for side in zip(*found, strict=True))
    added = statistics.median(b - a for a, b in found)
    print(f"{count} images each way, by turns; load {os.getloadavg()[0]:.1f}")
    print(f"  gRPC median {grpc:8.1f} ms, HTTP median {http_:8.1f} ms")
    print(f"  HTTP adds {1e3 * added:+.2f} ms (median of the differences within pairs)")
    if added <= MAX_SECONDS:
        return 0
    print(f"  HTTP takes too long: over {1e3 * MAX_SECONDS:.0f} ms more")
    return 1
