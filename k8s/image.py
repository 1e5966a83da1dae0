"""Proves an image's build steps without an engine: what the Dockerfile copies and installs, in a clean folder.

For the gateway's image: its requirements into an empty virtual environment, its folders into an empty folder, its stubs
built there; then the process starts, is healthy, and ends well, and torch was never there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = ROOT / "Dockerfile"


class Failed(Exception):
    """A step of the image does not do what it should."""


def steps(stage: str) -> list[tuple[str, str]]:
    """The instructions of a stage of the Dockerfile: word and rest, continued lines joined."""
    whole = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", whole).splitlines()
    found: list[tuple[str, str]] = []
    inside = False
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            inside = rest.split(" AS ")[-1].strip() == stage
        elif inside and word:
            found.append((word, rest.strip()))
    if not found:
        raise Failed(f"{DOCKERFILE}: no stage {stage}")
    return found


def copied(stage: str) -> list[str]:
    """What a stage copies from the checkout."""
    copies = [rest for word, rest in steps(stage) if word == "COPY" and not rest.startswith("--from")]
    return [source for rest in copies for source in rest.split()[:-1] if not source.startswith("--")]


def commands(stage: str) -> list[str]:
    """What a stage runs, cache mounts left out."""
    return [re.sub(r"--mount=\S+\s*", "", rest) for word, rest in steps(stage) if word == "RUN"]


def prove() -> str:
    """Build and run the gateway's image by hand. Raises Failed, or CalledProcessError with the step that went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        _build(here)
        size = _size(here / "venv") + _size(here / "app")
        python = here / "venv/bin/python"
        _run([python, "-c", "import gateway.assembly, gateway.scaler"], here / "app")
        if subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 0:
            raise Failed("torch is in the gateway's image")
        seconds = _serve(python, here / "app")
        packages = _run([python, "-m", "pip", "list", "--format=freeze"], here).count("==")
    return f"{packages} packages, {size / 1e6:.0f} MB beside the base, healthy after {seconds:.1f} s, exit 0, no torch"


def _build(here: Path) -> None:
    app, home = here / "app", here / "venv"
    app.mkdir()
    for source in {*copied("packages"), *copied("stubs"), *copied("image-gateway")}:
        place = app / source.rstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(
                ROOT / source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*_pb2*", "__pycache__")
            )
        else:
            shutil.copy(ROOT / source, place)
    tools = here / "tools"
    for stage, place in (("stubs", tools), ("packages-gateway", home)):
        venv.create(place, with_pip=True)
        for command in ["python -m pip install --quiet --upgrade pip", *commands(stage)]:
            changed = command.replace("/opt/venv", str(home)).replace("python -m venv " + str(home), "true")
            _run(["bash", "-euo", "pipefail", "-c", changed], app, place / "bin")


def clean_environment() -> dict[str, str]:
    """This process's, without what would lead Python or a server elsewhere; with the image's own path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HART_", "PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "PYTHONPATH": ".:client"}


def _run(words: list[str | Path], where: Path, first: Path | None = None) -> str:
    path = os.pathsep.join([*([str(first)] if first else []), os.environ["PATH"]])
    environment = {**clean_environment(), "PATH": path}
    done = subprocess.run([str(word) for word in words], cwd=where, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, words))[-300:]}: {(done.stdout + done.stderr).strip()[-1500:]}")
    return done.stdout


def _serve(python: Path, app: Path) -> float:
    port = _free_port()
    begun = time.monotonic()
    process = subprocess.Popen(
        [python, "-m", "gateway"],
        cwd=app,
        env={**clean_environment(), "HART_PORT": str(port), "HART_METRICS_PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        healthy = (
            "import grpc, sys; from grpc_health.v1 import health_pb2 as p, health_pb2_grpc as g; "
            f"c = grpc.insecure_channel('127.0.0.1:{port}', [('grpc.enable_http_proxy', 0)]); "
            "q = p.HealthCheckRequest(service='hart.v1.Images'); "
            "r = g.HealthStub(c).Check(q, timeout=30, wait_for_ready=True); "
            "sys.exit(r.status != 1)"
        )
        while subprocess.run([python, "-c", healthy], capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() - begun > 60:
                process.kill()
                raise Failed(f"the gateway does not serve: {process.communicate()[0][-1500:]}")
            time.sleep(0.5)
        seconds = time.monotonic() - begun
        process.send_signal(signal.SIGTERM)
        if code := process.wait(30):
            raise Failed(f"the gateway ended with {code}")
    finally:
        process.kill()
        process.wait()
    return seconds


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    print(prove())
    sys.exit(0)
