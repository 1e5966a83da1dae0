"""Generated requests to every path of the OpenAPI document, right and wrong, against a real cluster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness.ports import free_port
from benchmarks.harness.processes import Cluster

pytest.importorskip("schemathesis", reason="the package schemathesis is not installed: make http-check")
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "missing_required_header", "unsupported_method",
)  # fmt: skip
"""All that need no knowledge of the model: which prompts it draws is not in the schema."""


SETTINGS = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 504]
"""
"""504 is right where a generated deadline is too short."""


@pytest.fixture(scope="module")
def url(cluster: Cluster) -> Iterator[str]:
    """The HTTP API of a gateway."""
    port = free_port()
    with cluster.another_gateway(http_port=str(port)):
        yield f"http://127.0.0.1:{port}"


def test_no_generated_request_leaves_the_document(url: str, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    command: list[str | Path] = [
        Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json", f"--checks={','.join(CHECKS)}",
        "--max-examples=100", "--phases=examples,coverage,fuzzing", "--mode=all", "--seed=1", "--no-color",
        "--generation-database=none",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
