"""Numbers and texts as libraries, files and consoles have them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.client.command import COMMAND
from tests.client.conftest import Gateway


def ascii_console(gateway: Gateway, folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    console = {"PYTHONIOENCODING": "ascii:strict", "HART_ENDPOINT": gateway.endpoint}
    return subprocess.run([*COMMAND, *words], env={**os.environ, **console}, cwd=folder, capture_output=True)


@pytest.mark.parametrize(
    "words",
    [["--help"], ["generate", "--help"], ["generate", "zyzzyva \u2764"], ["describe"], ["status"]],
    ids=lambda words: " ".join(words).encode("ascii", "replace").decode(),
)
def test_a_console_of_ascii_is_written_to(gateway: Gateway, tmp_path: Path, words: list[str]) -> None:
    done = ascii_console(gateway, tmp_path, *words)
    assert b"Traceback" not in done.stderr
    assert done.returncode == (4 if words == ["status"] else 0), done.stderr
    assert done.stdout.isascii()


def test_a_waterfall_is_drawn_on_a_console_of_ascii(gateway: Gateway, tmp_path: Path) -> None:
    answer = ascii_console(gateway, tmp_path, "generate", "x", "--json").stdout
    for mark in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "a.json").write_bytes(mark + answer)
        done = ascii_console(gateway, tmp_path, "trace", "a.json")
        assert done.returncode == 0, done.stderr
        assert b"##" in done.stdout
        assert b"\\u" not in done.stdout
    assert json.loads(answer)["images"]
