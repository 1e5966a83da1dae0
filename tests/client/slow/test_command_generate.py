"""hart.cli.generate: `hart generate`, its files, standard output and messages."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

from hart.cli.app import app
from PIL import Image as PillowImage
from typer.testing import CliRunner

from tests.client.command import COMMAND
from tests.client.conftest import Gateway


def test_terminal_shows_the_progress_of_the_scales(gateway: Gateway, tmp_path: Path) -> None:
    shown = threading.Event()
    gateway.before = lambda _: shown.wait(90)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "HART_ENDPOINT": gateway.endpoint, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([*COMMAND, "generate", "x"], env=environment, cwd=tmp_path, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
        if b"accepted" in seen:
            shown.set()
    os.close(ours)
    assert process.wait(60) == 0
    assert b"accepted" in seen
    assert b"picture.png" in seen
    assert PillowImage.open(tmp_path / "picture.png").size == (8, 8)


def test_one_image_can_be_written_to_stdout(gateway: Gateway, tmp_path: Path) -> None:
    environment = {**os.environ, "HART_ENDPOINT": gateway.endpoint}
    piped = subprocess.run([*COMMAND, "generate", "x", "-o", "-"], env=environment, cwd=tmp_path, capture_output=True)
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout.startswith(b"\x89PNG")
    assert not list(tmp_path.iterdir())


def test_every_subcommand_has_help_and_none_loads_torch() -> None:
    code = "import sys; from hart.cli import app, batch, report; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
    assert "hart-client" in CliRunner().invoke(app, ["--version"]).output
    for command in ("generate", "describe", "status", "trace", "bench"):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
