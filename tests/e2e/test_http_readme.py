"""README's lines of HTTP, executed against a real cluster."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness.ports import free_port
from benchmarks.harness.processes import ROOT, Cluster

PUBLISHED = "http://127.0.0.1:53051"
README = (ROOT / "README.md").read_text("utf-8")
LINES = [line.strip() for line in README.splitlines() if line.startswith("    curl ")]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def url(cluster: Cluster) -> Iterator[str]:
    """The HTTP API of a gateway."""
    port = free_port()
    with cluster.another_gateway(http_port=str(port)):
        yield f"http://127.0.0.1:{port}"


def run(line: str, url: str, folder: Path) -> str:
    """What a line of the README prints, as a shell runs it in `folder`."""
    assert PUBLISHED in line
    command = ["bash", "-o", "pipefail", "-c", line.replace(PUBLISHED, url)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
def test_the_first_curl_line_draws_a_picture(url: str, tmp_path: Path) -> None:
    run(LINES[0], url, tmp_path)
    assert (tmp_path / "heart.png").read_bytes().startswith(PNG)


def test_the_second_curl_line_streams(url: str, tmp_path: Path) -> None:
    found = re.findall("^event: (.*)$", run(LINES[1], url, tmp_path), re.MULTILINE)
    assert found[-1] == "image_generation.completed"


def test_the_third_curl_line_lists_the_model(url: str, tmp_path: Path) -> None:
    assert [model["id"] for model in json.loads(run(LINES[2], url, tmp_path))["data"]] == ["tiny"]
    assert len(LINES) == 3


def test_the_python_example_draws_a_picture(url: str, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="the package openai is not installed: make http-check")
    (example,) = re.findall(r"```python\n(from openai.*?|import base64.*?)```", README, re.DOTALL)
    assert PUBLISHED in example
    done = subprocess.run(
        [sys.executable, "-c", example.replace(PUBLISHED, url)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "heart.png").read_bytes().startswith(PNG)
