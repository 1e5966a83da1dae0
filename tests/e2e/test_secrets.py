"""Logs, traces, metrics, errors and command lines of the cluster contain no keys and no prompts."""

import base64
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import hart
import psutil
import pytest
from hart import errors

from benchmarks.harness.checkpoint import FORBIDDEN
from benchmarks.harness.processes import Cluster, Process
from tests.e2e.collector import Collector

KEY, OTHER, WRONG, PASSWORD = "k-3b1f80c2", "k-77e0aa19", "k-5d44b7e6", "p-90c1d2f4"
MARKER_WORD = "zebrafinch"
"""A word of every prompt here, in no other text."""


@pytest.fixture(scope="module")
def gateway(cluster: Cluster, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"bob={OTHER}\n")
    settings = {
        "api_keys": f"alice={KEY}",
        "api_keys_file": str(keys),
        "jwt_jwks_url": f"http://reader:{PASSWORD}@127.0.0.1:9/jwks",
        "jwt_issuer": "https://issuer.example",
        "log_level": "debug",
        "otlp_endpoint": collector.endpoint,
    }
    with cluster.another_gateway(**settings) as process:
        yield process


@pytest.fixture(scope="module")
def error_texts(gateway: Process) -> str:
    """The error texts of failed requests; successful ones are sent too."""
    found = []
    for key in (KEY, OTHER, WRONG, token(WRONG), None):
        with hart.Client(gateway.address, api_key=key) as client:
            for prompt, timeout in (
                (f"a {MARKER_WORD}", 60.0),
                (f"a {FORBIDDEN} {MARKER_WORD}", 60.0),
                (f"{MARKER_WORD} " * 300, 60.0),
                (f"{MARKER_WORD} {time.time_ns()}", 0.02),
            ):
                try:
                    client.generate(prompt, timeout=timeout, request_id=f"r{time.time_ns()}")
                    found.append("drawn")  # its report may name words out of vocabulary
                except errors.HartError as error:
                    found.append(f"{error!r} {error} {vars(error)} {error.__cause__!r}")
    return "\n".join(found)


def token(subject: str) -> str:
    """A forged JWT: the gateway fetches the issuer's keys, from a URL with a password."""
    parts = {"alg": "RS256", "kid": "k"}, {"iss": "https://issuer.example", "sub": subject, "exp": time.time() + 60}
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join((*encoded, "c2lnbmF0dXJl"))


def secrets_in(text: str, *names: str) -> list[str]:
    return [name for name in (KEY, OTHER, WRONG, PASSWORD, *names) if name in text]


def test_errors_contain_neither_keys_nor_prompts(error_texts: str) -> None:
    for kind in ("Unauthenticated", "Unavailable", "InvalidRequest", "PromptUnsafe", "DeadlineExceeded"):
        assert kind in error_texts
    assert "drawn" in error_texts
    assert not secrets_in(error_texts, MARKER_WORD)


def test_logs_contain_no_secrets(cluster: Cluster, gateway: Process, error_texts: str) -> None:
    logs = {file.name: file.read_text() for file in cluster.folder.glob("*.log")}
    text = logs[gateway.log.name]
    assert '"message": "settings"' in text
    assert '"log_level": "debug"' in text
    assert '"caller": "alice"' in text
    for name, content in logs.items():
        assert not secrets_in(content, MARKER_WORD), name


def test_traces_contain_no_secrets(collector: Collector, error_texts: str) -> None:
    end = time.monotonic() + 60
    while not any("PROMPT_UNSAFE" in str(span.attributes) for span in list(collector.spans)):
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(1.0)  # the rest of them
    assert not secrets_in(str(collector.spans), MARKER_WORD)


def test_metrics_contain_no_secrets(cluster: Cluster, gateway: Process, error_texts: str) -> None:
    for process in (*cluster.processes(), gateway):
        with urllib.request.urlopen(f"http://127.0.0.1:{process.metrics_port}/metrics", timeout=10) as answer:
            assert not secrets_in(answer.read().decode(), MARKER_WORD), process.name


def test_command_lines_contain_no_secrets(gateway: Process, error_texts: str) -> None:
    processes = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    own = " ".join(psutil.Process(gateway.process.pid).cmdline())
    assert own in processes
    assert not secrets_in(processes)


def test_environment_is_readable_by_its_own_user_only(gateway: Process) -> None:
    assert KEY in Path(f"/proc/{gateway.process.pid}/environ").read_text()
    assert os.stat(f"/proc/{gateway.process.pid}/environ").st_mode & 0o077 == 0
