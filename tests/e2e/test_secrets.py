"""Keys and prompts are in no log, trace, metric, error and command line, whatever becomes of the requests."""

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
TELLING = "zebrafinch"
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
def said(gateway: Process) -> str:
    """All that callers were told of requests that failed; good ones are sent too."""
    found = []
    for key in (KEY, OTHER, WRONG, token(WRONG), None):
        with hart.Client(gateway.address, api_key=key) as client:
            for prompt, timeout in (
                (f"a {TELLING}", 60.0),
                (f"a {FORBIDDEN} {TELLING}", 60.0),
                (f"{TELLING} " * 300, 60.0),
                (f"{TELLING} {time.time_ns()}", 0.02),
            ):
                try:
                    client.generate(prompt, timeout=timeout, request_id=f"r{time.time_ns()}")
                    found.append("drawn")  # its report may well name a word that the model does not know
                except errors.HartError as error:
                    found.append(f"{error!r} {error} {vars(error)} {error.__cause__!r}")
    return "\n".join(found)


def token(subject: str) -> str:
    """What looks like an issuer's JWT: its keys are asked for, at an address with a password."""
    parts = {"alg": "RS256", "kid": "k"}, {"iss": "https://issuer.example", "sub": subject, "exp": time.time() + 60}
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join((*encoded, "c2lnbmF0dXJl"))


def secrets_in(text: str, *names: str) -> list[str]:
    return [name for name in (KEY, OTHER, WRONG, PASSWORD, *names) if name in text]


def test_callers_are_told_neither_keys_nor_their_prompts(said: str):
    for kind in ("Unauthenticated", "Unavailable", "InvalidRequest", "PromptUnsafe", "DeadlineExceeded"):
        assert kind in said
    assert "drawn" in said
    assert not secrets_in(said, TELLING)


def test_no_log_holds_them(cluster: Cluster, gateway: Process, said: str):
    logs = {file.name: file.read_text() for file in cluster.folder.glob("*.log")}
    text = logs[gateway.log.name]
    assert '"message": "settings"' in text
    assert '"log_level": "debug"' in text
    assert '"caller": "alice"' in text
    for name, content in logs.items():
        assert not secrets_in(content, TELLING), name


def test_no_trace_holds_them(collector: Collector, said: str):
    end = time.monotonic() + 60
    while not any("PROMPT_UNSAFE" in str(span.attributes) for span in list(collector.spans)):
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(1.0)  # the rest of them
    assert not secrets_in(str(collector.spans), TELLING)


def test_no_metric_holds_them(cluster: Cluster, gateway: Process, said: str):
    for process in (*cluster.processes(), gateway):
        with urllib.request.urlopen(f"http://127.0.0.1:{process.metrics_port}/metrics", timeout=10) as answer:
            assert not secrets_in(answer.read().decode(), TELLING), process.name


def test_no_command_line_holds_them(gateway: Process, said: str):
    listed = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    own = " ".join(psutil.Process(gateway.process.pid).cmdline())
    assert own in listed
    assert not secrets_in(listed)


def test_what_a_process_was_given_is_for_its_own_user_alone(gateway: Process):
    assert KEY in Path(f"/proc/{gateway.process.pid}/environ").read_text()
    assert os.stat(f"/proc/{gateway.process.pid}/environ").st_mode & 0o077 == 0
