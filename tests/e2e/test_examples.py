"""The backends in examples/, built and started by the lines of their READMEs, against a real cluster.

`make examples-check` runs them: to install and compile takes a minute and two registries.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hart
import pytest

from benchmarks.harness.checkpoint import UNSAFE_PROMPT
from benchmarks.harness.ports import free_port
from benchmarks.harness.processes import ROOT, Cluster
from tests.e2e.relay import Relay, relaying

TOOLS = {"python": ("python3",), "typescript": ("npm",), "go": ("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc")}
REGISTRIES = ("pip install", "npm ci")
"""Lines that fail where their registry cannot be reached."""
BUSY_DRAWS = 20
"""A decoder that is busy sends no preview: so many draws may pass until one has some."""
Event = tuple[str, dict[str, Any]]


pytestmark = pytest.mark.skipif("HART_EXAMPLES" not in os.environ, reason="`make examples-check` runs the examples")


@pytest.fixture(scope="module")
def relay(cluster: Cluster) -> Iterator[tuple[Relay, str]]:
    """In front of the cluster's gateway."""
    with relaying(cluster.endpoint) as running:
        yield running


class Backend:
    """A running example."""

    def __init__(self, language: str, port: int, relay: Relay) -> None:
        self.language, self.port, self.relay = language, port, relay

    def draw(self, **query: str) -> list[Event]:
        """The events of one request."""
        url = f"http://127.0.0.1:{self.port}/draw?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            text = answer.read().decode()
        return [parsed(block) for block in text.split("\n\n") if block]


def parsed(block: str) -> Event:
    name, data = block.split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def lines_of(folder: Path) -> list[str]:
    """The commands of an example's README, the last one of which starts it."""
    return [line.strip() for line in (folder / "README.md").read_text().splitlines() if line.startswith("    ")]


def built(language: str, folder: Path) -> Path:
    """A copy of the example, with what it reads of the checkout beside it, built."""
    if absent := [tool for tool in TOOLS[language] if shutil.which(tool) is None]:
        pytest.skip(f"{', '.join(absent)}: not installed")
    if language == "go" and not Path("/usr/share/gocode/src/google.golang.org/grpc").is_dir():
        pytest.skip("golang-google-grpc-dev is not installed")
    example = folder / "examples" / language
    shutil.copytree(ROOT / "examples" / language, example, ignore=shutil.ignore_patterns("build", "node_modules"))
    for name in ("protos", "client"):
        (folder / name).symlink_to(ROOT / name)
    for line in lines_of(example)[:-1]:
        done = subprocess.run(["bash", "-c", line], cwd=example, capture_output=True, text=True, timeout=280)
        if done.returncode and any(registry in line for registry in REGISTRIES):
            pytest.skip(f"{line}: {(done.stdout + done.stderr)[-200:]}")
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return example


@pytest.fixture(scope="module", params=sorted(TOOLS))
def backend(
    request: pytest.FixtureRequest, relay: tuple[Relay, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    """One example's process."""
    example = built(request.param, tmp_path_factory.mktemp(request.param))
    port = free_port()
    variables = {**os.environ, "HART_ENDPOINT": relay[1], "PORT": str(port)}
    process = subprocess.Popen(["bash", "-c", f"exec env {lines_of(example)[-1]}"], cwd=example, env=variables)
    try:
        yield awaited(Backend(request.param, port, relay[0]), process)
    finally:
        process.terminate()
        process.wait(20)


def awaited(backend: Backend, process: subprocess.Popen[bytes]) -> Backend:
    """The backend, as soon as it answers."""
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        try:
            backend.draw(prompt="")
            return backend
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError(f"the backend does not answer; exit code {process.poll()}")


def test_previews_come_before_the_image_that_every_client_gets(backend: Backend, client: hart.Client) -> None:
    for _ in range(BUSY_DRAWS):
        *previews, (name, image) = backend.draw(prompt="a red heart", seed="7")
        assert (name, image["seed"]) == ("image", "7")
        assert base64.b64decode(image["image"]) == client.generate("a red heart", seed=7)[0].data
        if previews:
            break
    assert {name for name, _ in previews} == {"preview"}
    assert all(base64.b64decode(preview["image"]).startswith(b"\xff\xd8") for _, preview in previews)


def test_a_bad_field_and_an_unsafe_prompt_are_read_from_the_details(backend: Backend) -> None:
    ((name, error),) = backend.draw(prompt="")
    assert (name, error["code"], list(error["fields"])) == ("error", "INVALID_ARGUMENT", ["prompt"])
    ((name, error),) = backend.draw(prompt=UNSAFE_PROMPT)
    assert (name, error["code"], error["reason"]) == ("error", "INVALID_ARGUMENT", "PROMPT_UNSAFE")
    assert error["metadata"]["policies"] == "dangerous_content"


def test_the_published_service_config_retries(backend: Backend) -> None:
    backend.relay.failures, backend.relay.calls = 2, 0
    assert backend.draw(prompt="a red heart")[-1][0] == "image"
    assert (backend.relay.failures, backend.relay.calls) == (0, 3)


def test_the_request_s_seconds_are_the_call_s_deadline(backend: Backend) -> None:
    assert backend.draw(prompt="a red heart", seconds="0.002")[-1][1]["code"] == "DEADLINE_EXCEEDED"
    backend.relay.deadlines.clear()
    backend.draw(prompt="a red heart", seconds="12")
    assert backend.relay.deadlines[0] == pytest.approx(12, abs=1)


def test_a_browser_that_leaves_cancels_the_call(backend: Backend) -> None:
    if backend.language == "python":
        pytest.skip("http.server of Python detects a closed connection only when it writes")
    with backend.relay.held() as cancelled:
        calls = backend.relay.calls
        with socket.create_connection(("127.0.0.1", backend.port)) as browser:
            browser.sendall(b"GET /draw?prompt=a+red+heart HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while backend.relay.calls == calls:
                time.sleep(0.01)
            assert not cancelled.is_set()
        assert cancelled.wait(10)
