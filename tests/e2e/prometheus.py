"""A real Prometheus for given targets, and queries to it."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.harness.ports import free_port

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    address: str

    def ask(self, path: str, **parameters: str) -> Any:
        """`data` of a response of its HTTP API. Raises urllib.error.HTTPError if it refuses."""
        url = f"{self.address}/api/v1/{path}?" + urllib.parse.urlencode(parameters)
        with _direct.open(url, timeout=20) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> list[Any]:
        """The series of an instant query."""
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def find(self, expression: str, seconds: float = 30.0) -> list[Any]:
        """The same, waiting for a first series: after a late scrape there is none until the next."""
        with suppress(TimeoutError):
            self.await_(lambda p: bool(p.query(expression)), seconds)
        return self.query(expression)

    def await_(self, what: Callable[[Prometheus], bool], seconds: float = 60.0) -> None:
        """Wait until the condition holds. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not self._holds(what):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s")
            time.sleep(0.25)

    def _holds(self, what: Callable[[Prometheus], bool]) -> bool:
        try:
            return what(self)
        except OSError:  # it is starting, or refuses
            return False


@contextmanager
def prometheus(
    program: Path,
    folder: Path,
    targets: Mapping[str, Mapping[str, str]],
    rules: Sequence[Path] = (),
    interval: str = "1s",
) -> Iterator[Prometheus]:
    """A Prometheus scraping `targets` (address to labels). Raises RuntimeError with its log if it cannot start."""
    jobs = [{"targets": [address], "labels": dict(labels)} for address, labels in targets.items()]
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": interval, "evaluation_interval": interval},
                "scrape_configs": [{"job_name": "hart", "static_configs": jobs}],
                "rule_files": [str(rule) for rule in rules],
            }
        )
    )
    port = free_port()
    words = ["--config.file", "prometheus.yml", "--storage.tsdb.path", "data", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, *words], cwd=folder, stdout=log, stderr=log)
    try:
        running = Prometheus(f"http://127.0.0.1:{port}")
        running.await_(lambda p: process.poll() is not None or p.ask("status/runtimeinfo") is not None)
        if process.poll() is not None:
            raise RuntimeError((folder / "log").read_text())
        yield running
    finally:
        process.terminate()
        process.wait(20)
