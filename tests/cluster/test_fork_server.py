"""The fork server and its client on small modules: real processes, signals and exit codes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.plan import ROOT

PROGRAM = """
import os, sys, time, shared
print(os.environ["NAME"], shared.pid == os.getppid(), sys.argv, flush=True)
if os.environ["NAME"] == "waits":
    time.sleep(600)
if os.environ["NAME"] == "raises":
    raise RuntimeError("broken")
sys.exit(7)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package `stage` whose import the server does once, and `late`, which it does last."""
    (tmp_path / "shared.py").write_text("import os\npid = os.getpid()\n")
    for name, preload in (("stage", "import shared"), ("late", "import time, shared; time.sleep(1)")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "assembly.py").write_text(preload)
        (tmp_path / name / "__main__.py").write_text(PROGRAM)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running fork server."""
    command = [sys.executable, "-P", str(ROOT / "cluster/fork_server.py"), str(folder), "stage", "late"]
    with subprocess.Popen(command, cwd=folder) as process:
        yield process
        process.kill()


def client(folder: Path, name: str, module: str = "stage") -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-S", str(ROOT / "cluster/forked.py"), str(folder), module]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "NAME": name},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def forked(server: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(server.pid).children()


def until(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("module", ["stage", "late"])
def test_a_forked_process_has_its_clients_environment_streams_and_exit_code(
    server: subprocess.Popen[bytes], folder: Path, module: str
) -> None:
    one = client(folder, "ends", module)
    out, _ = one.communicate(timeout=30)
    assert out == f"ends True ['{folder}/{module}/__main__.py']\n"
    assert one.returncode == 7


def test_an_error_is_printed_and_ends_with_code_1(server: subprocess.Popen[bytes], folder: Path) -> None:
    one = client(folder, "raises")
    out, _ = one.communicate(timeout=30)
    assert "RuntimeError: broken" in out
    assert one.returncode == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 128 + 15), (signal.SIGINT, 128 + 2)])
def test_a_signal_reaches_the_process(server: subprocess.Popen[bytes], folder: Path, number: int, code: int) -> None:
    one = client(folder, "waits")
    assert one.stdout is not None
    one.stdout.readline()
    one.send_signal(number)
    assert one.wait(20) in (code, 1)
    until(lambda: not forked(server))


def test_a_process_ends_with_its_client(server: subprocess.Popen[bytes], folder: Path) -> None:
    one = client(folder, "waits")
    assert one.stdout is not None
    one.stdout.readline()
    one.kill()
    until(lambda: not forked(server))
    assert client(folder, "ends").wait(20) == 7  # the server serves on


def test_the_client_ends_when_its_process_is_killed(server: subprocess.Popen[bytes], folder: Path) -> None:
    one = client(folder, "waits")
    assert one.stdout is not None
    one.stdout.readline()
    forked(server)[0].kill()
    assert one.wait(20) == 128 + 9


def test_a_process_survives_the_server_and_its_client_still_ends_it(
    server: subprocess.Popen[bytes], folder: Path
) -> None:
    one = client(folder, "waits")
    assert one.stdout is not None
    one.stdout.readline()
    [process] = forked(server)
    server.kill()
    time.sleep(0.3)
    assert process.is_running()
    assert one.poll() is None
    one.terminate()
    assert one.wait(20) == 1
    until(lambda: not process.is_running())


def test_the_server_ends_after_its_processes(server: subprocess.Popen[bytes], folder: Path) -> None:
    one = client(folder, "waits")
    assert one.stdout is not None
    one.stdout.readline()
    server.terminate()
    time.sleep(0.3)
    assert server.poll() is None
    one.terminate()
    assert server.wait(20) == 0


def test_without_a_server_the_client_becomes_the_module(folder: Path) -> None:
    one = client(folder, "ends")
    out, _ = one.communicate(timeout=30)
    assert out.startswith("ends False")
    assert one.returncode == 7


def test_a_request_without_streams_is_dropped(server: subprocess.Popen[bytes], folder: Path) -> None:
    until(lambda: (folder / "fork.sock").exists())
    with socket.socket(socket.AF_UNIX) as bad:
        before = os.getcwd()
        os.chdir(folder)
        bad.connect("fork.sock")
        os.chdir(before)
        bad.sendall(b'{"module": "stage", "environment": {}}\n')
        assert bad.recv(1) == b""
    assert client(folder, "ends").wait(20) == 7
    assert (folder / "fork.sock").stat().st_mode & 0o077 == 0
