"""The official `openai` package of Node, unmodified, against a real cluster."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import hart
import pytest

from benchmarks.harness.checkpoint import UNSAFE_PROMPT
from benchmarks.harness.ports import free_port
from benchmarks.harness.processes import Cluster

PACKAGE = Path(__file__).parent / "openai_node"
ERRORS = {
    "unsafe": {"name": "BadRequestError", "status": 400, "code": "content_policy_violation", "param": None},
    "invalid": {"name": "BadRequestError", "status": 400, "code": "invalid_value", "param": "n"},
    "wrongKey": {"name": "AuthenticationError", "status": 401, "code": "invalid_api_key", "param": None},
    "limited": {"name": "RateLimitError", "status": 429, "code": "rate_limit_exceeded", "param": None},
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The check with the package installed beside it."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("openai_node") / "check"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm cannot install the package openai: {done.stderr[-200:]}")
    return folder


def test_it_generates_streams_and_gets_its_own_errors(cluster: Cluster, package: Path) -> None:
    port = free_port()
    with cluster.another_gateway(http_port=str(port), api_keys="alice=k1", caller_concurrency="1"):
        found = {"BASE_URL": f"http://127.0.0.1:{port}/v1", "API_KEY": "k1", "UNSAFE_PROMPT": UNSAFE_PROMPT}
        done = subprocess.run(
            ["node", "check.mjs"], cwd=package, env={**os.environ, **found}, capture_output=True, text=True, timeout=250
        )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    with hart.Client(cluster.endpoint) as client:
        image = client.generate("a red heart", seed=7)[0].data
    assert base64.b64decode(seen["generated"]) == base64.b64decode(seen["streamed"]) == image
    assert seen["usage"] > 0
    assert seen["events"][-1] == "image_generation.completed"
    assert set(seen["events"][:-1]) <= {"image_generation.partial_image"}
    assert {name: seen[name] for name in ERRORS} == ERRORS
    assert seen["timeout"]["name"] == "APIConnectionTimeoutError"
    assert seen["patient"] == 1
    assert seen["models"] == ["tiny"]
