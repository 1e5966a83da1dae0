"""client/README.md: its examples, executed."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.conftest import Gateway, image_file
from tests.client.readme import PUBLISHED, README, commands


def test_python_example_runs(gateway: Gateway, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert PUBLISHED in example
    example = example.replace(PUBLISHED, gateway.endpoint)
    found = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["heart-0.png", "heart-0.preview.jpg", "heart-1.png", "heart-1.preview.jpg", "heart.png"]
    for word in ("2 pictures of 3 scales each", "a green apple", "'decoder': '0/2'"):
        assert word in found.stdout


@pytest.mark.parametrize("words", commands("buf"), ids=lambda words: words[-1].rsplit("/", 1)[-1])
def test_buf_curl_example_works_by_reflection(gateway: Gateway, words: list[str]) -> None:
    *options, url = words[1:]
    command: list[str | Path] = [
        Path(sys.executable).with_name("buf"),
        *options,
        url.replace(PUBLISHED, gateway.endpoint),
    ]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    if "--list-services" in options:
        assert "hart.v1.Images" in found.stdout.splitlines()
    else:
        assert found.stdout.startswith("{")
    if url.endswith("/Generate"):
        assert base64.b64decode(json.loads(found.stdout)["images"][0]["data"]) == image_file(7)
