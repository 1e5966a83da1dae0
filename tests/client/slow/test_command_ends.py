"""hart.__main__: real processes that are interrupted, have no reader or cannot write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.client.command import COMMAND
from tests.client.conftest import Gateway


@pytest.mark.parametrize("words", [["generate", "x"], ["generate", "--file", "p.txt"]], ids=" ".join)
def test_ctrl_c_cancels_on_the_server_and_exits_with_130(gateway: Gateway, tmp_path: Path, words: list[str]) -> None:
    gateway.hang = True
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    process = subprocess.Popen(
        [*COMMAND, *words],
        env={**os.environ, "HART_ENDPOINT": gateway.endpoint},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert gateway.started.wait(90)
    process.send_signal(signal.SIGINT)
    _, output = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "interrupted" in output
    assert "Traceback" not in output
    assert gateway.cancelled.wait(60)
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]


@pytest.mark.parametrize("moment", ["typer", "grpc", "hart.cli.generate"])
def test_ctrl_c_during_imports_is_silent_and_exits_with_130(tmp_path: Path, moment: str) -> None:
    # A finder sends SIGINT when this module is imported.
    code = f"""
import os, signal, sys, time
class Finger:
    def find_spec(self, name, path=None, target=None):
        if name == {moment!r}:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(90)
sys.meta_path.insert(0, Finger())
sys.argv = ["hart", "generate", "x"]
from hart.__main__ import main
main()
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "")


@pytest.mark.parametrize("line", [20, 160, 190, 280, 340, 440, 1500, 4200])
@pytest.mark.parametrize("words", [["generate", "x"], ["describe"]], ids=" ".join)
def test_ctrl_c_at_any_line_is_silent_and_exits_with_130(
    gateway: Gateway, tmp_path: Path, words: list[str], line: int
) -> None:
    # The n-th line of Python after the subcommand begins sends SIGINT: while the event loop is created, during the
    # call, while everything is closed. With fewer lines, the final wait is interrupted.
    gateway.hang = True
    code = f"""
import os, signal, sys
import hart.aio, hart.client, hart.cli.report
left = {line}
def began(frame, event, arg):
    if frame.f_code.co_name == {words[0]!r} and frame.f_code.co_filename.endswith(("generate.py", "inspect.py")):
        sys.settrace(lambda *_: passed)
        return passed
def passed(frame, event, arg):
    global left
    left -= event == "line"
    if left == 0:
        sys.settrace(None)
        os.kill(os.getpid(), signal.SIGINT)
    return passed
sys.settrace(began)
sys.argv = ["hart", *{words!r}]
from hart.__main__ import main
main()
"""
    environment = {**os.environ, "HART_ENDPOINT": gateway.endpoint}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (found.returncode, found.stdout, found.stderr) in [(130, "", ""), (130, "", "interrupted\n")]
    assert list(tmp_path.iterdir()) == []


def test_import_before_the_interrupt_handler_is_minimal() -> None:
    code = (
        "import sys; before = set(sys.modules); import hart; print(set(sys.modules) - before - {'__future__', 'hart'})"
    )
    assert subprocess.check_output([sys.executable, "-I", "-c", code], text=True).strip() == "set()"


def test_closed_stdout_pipe_is_no_error(gateway: Gateway, tmp_path: Path) -> None:
    environment = {**os.environ, "HART_ENDPOINT": gateway.endpoint, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*COMMAND, "describe", "--json"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    output = process.stderr.read()
    assert (process.wait(60), output) == (1, b"")


def test_unwritable_stdout_exits_with_1(gateway: Gateway, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        found = subprocess.run(
            [*COMMAND, "generate", "x", "-o", "-"],
            env={**os.environ, "HART_ENDPOINT": gateway.endpoint},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert found.returncode == 1
    assert "No space left" in found.stderr


def test_link_to_an_open_pipe_is_written_and_kept(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("/proc/self/fd/1")  # like /dev/stdout: its target has no name
    found = subprocess.run(
        [*COMMAND, "generate", "x", "-o", "a.png"],
        env={**os.environ, "HART_ENDPOINT": gateway.endpoint},
        cwd=tmp_path,
        capture_output=True,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(b"\x89PNG")
    assert (tmp_path / "a.png").is_symlink()


def test_ctrl_c_ends_a_write_to_a_pipe_without_a_reader(gateway: Gateway, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a-1.png")  # the second image's path: a pipe without a reader
    process = subprocess.Popen(
        [*COMMAND, "generate", "x", "-n", "2", "-o", "a.png"],
        env={**os.environ, "HART_ENDPOINT": gateway.endpoint},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 120
    while not (tmp_path / "a-0.png").exists():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.02)
    try:
        while process.poll() is None:  # the first signal cancels; the next one leaves the pipe too
            assert time.monotonic() < end, "the condition did not become true"
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
        assert process.returncode == 130
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_ends_a_bench_with_partial_results(gateway: Gateway, tmp_path: Path) -> None:
    later = threading.Event()

    def hang_from_the_third_on(_: Any) -> None:
        if len(gateway.requests) > 2:
            gateway.hang = True
            later.set()

    gateway.before = hang_from_the_third_on
    (tmp_path / "p.txt").write_text("one\n")
    process = subprocess.Popen(
        [*COMMAND, "bench", "--rate", "10", "--seconds", "600", "--arrivals", "uniform", "--file", "p.txt"],
        env={**os.environ, "HART_ENDPOINT": gateway.endpoint},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert later.wait(60)
    process.send_signal(signal.SIGINT)
    answer, output = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert output.endswith("interrupted\n")
    found = json.loads(answer)
    assert found["sent"] == found["answered"] == found["images"] <= 2
    assert 0 < found["wall_seconds"] < 600
