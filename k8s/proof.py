"""Proves that the container images work: builds them by hand, runs all five processes from them and draws an image with
the bundled checkpoint. Knows the processes' names; `k8s.image` knows how a container image is built."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from benchmarks.harness.ports import free_port
from benchmarks.harness.processes import SERVICES, STAGES, is_serving
from common.stages import GATEWAY_SERVICE, START_SECONDS
from k8s import image
from k8s.image import Built, Failed

DRAW = """
import sys, grpc
from hart.v1 import images_pb2, images_pb2_grpc
channel = grpc.insecure_channel(sys.argv[1], [("grpc.enable_http_proxy", 0)])
answer = images_pb2_grpc.ImagesStub(channel).Generate(images_pb2.GenerateRequest(prompt="a red heart"), timeout=60)
image = answer.images[0]
assert image.data.startswith(b"\\x89PNG"), image.data[:8]
print(f"{image.width}x{image.height}, {len(image.data)} bytes")
"""


def gateway() -> str:
    """The gateway's container image alone: it starts, is healthy, exits with 0, and has no torch."""
    with tempfile.TemporaryDirectory() as folder:
        built = image.build(Path(folder), "image-gateway", "packages-gateway")
        image.run([built.python, "-c", "import gateway.assembly, gateway.api.keda_scaler"], built.app)
        if subprocess.run([built.python, "-c", "import torch"], capture_output=True).returncode == 0:
            raise Failed("torch is in the gateway's container image")
        begun = time.monotonic()
        with running(built, "gateway", {}) as port:
            await_serving(port, GATEWAY_SERVICE)
            seconds = time.monotonic() - begun
        about = described(built)
    return f"{about}, healthy after {seconds:.1f} s, exit 0, no torch"


def stages() -> str:
    """The container image of a stage without a GPU: all four run from it, and a gateway from its own. They draw
    an image with the checkpoint that the container image holds."""
    with tempfile.TemporaryDirectory() as folder:
        front = image.build(Path(folder) / "gateway", "image-gateway", "packages-gateway")
        built = image.build(Path(folder) / "stage", "image-stage", "packages-stage-cpu")
        about = described(built)
        with cluster(front, built) as port:
            drawn = image.run([front.python, "-c", DRAW, f"127.0.0.1:{port}"], front.app).strip()
    return f"{about}; five processes drew {drawn} with the bundled checkpoint, each exit 0"


def described(built: Built) -> str:
    """Its size and the number of entries in its bill of materials."""
    size = f"{len(built.packages)} packages, {built.megabytes:.0f} MB beside the base{built.notes}"
    return f"{size}, {built.bill()} entries in its SBOM"


def gpu() -> str:
    """The container image of a stage with a GPU, as far as a machine without one can check it."""
    return image.resolve("packages-stage-gpu")


@contextmanager
def cluster(front: Built, built: Built) -> Iterator[int]:
    """The gateway's port, after all five processes are ready."""
    with ExitStack() as stages:
        ports = {name: stages.enter_context(running(built, name)) for name in STAGES}
        for name, port in ports.items():
            await_serving(port, SERVICES[name])
        where = {f"HART_{name.upper()}": f"127.0.0.1:{port}" for name, port in ports.items()}
        with running(front, "gateway", where) as port:
            await_serving(port, GATEWAY_SERVICE)
            yield port


@contextmanager
def running(built: Built, name: str, settings: dict[str, str] | None = None) -> Iterator[int]:
    """The port of a process of this container image. Raises Failed if it does not exit with 0."""
    port = free_port()
    words = _arguments(dict(image.steps("image-gateway" if name == "gateway" else "image-stage"))["ENTRYPOINT"])
    words += [] if name == "gateway" else [f"services.{name}"]
    environment = {**image.clean_environment(), "HART_PORT": str(port), "HART_METRICS_PORT": "0", **(settings or {})}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([str(built.python), *words], cwd=built.app, env=environment, stdout=log, stderr=log)
        try:
            yield port
            process.send_signal(signal.SIGTERM)
            if code := process.wait(60):
                raise Failed(f"{name} ended with {code}: {_end(log)}")
        except Failed as error:
            raise Failed(f"{error}; log of {name}: {_end(log)}") from error
        finally:
            process.kill()
            process.wait()


def _arguments(entrypoint: str) -> list[str]:
    python, *rest = json.loads(entrypoint)
    if python != "python":
        raise Failed(f"{entrypoint}: does not run python")
    return list(rest)


def await_serving(port: int, service: str) -> None:
    """Return when the process at this port is ready. Raises Failed."""
    end = time.monotonic() + START_SECONDS
    while not is_serving(f"127.0.0.1:{port}", service):
        if time.monotonic() > end:
            raise Failed(f"{service} is not ready after {START_SECONDS:g} s")
        time.sleep(0.5)


def _end(log: TextIO) -> str:
    log.seek(0)
    return log.read()[-1500:]


if __name__ == "__main__":
    for proof in (gateway, stages, gpu):
        print(f"{proof.__name__}: {proof()}", flush=True)
    sys.exit(0)
