"""services.*.__main__, runtime.server.process: start, refusal with one line and exit code 2, clean exit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.harness.ports import free_port

ROOT = Path(__file__).resolve().parents[3]


def start(stage: str, **settings: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HART_")} | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", f"services.{stage}"],
        cwd=ROOT,
        env=environment | {f"HART_{name.upper()}": value for name, value in settings.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_missing_checkpoint_is_one_line_and_exits_with_2(tmp_path: Path) -> None:
    process = start("ar_generator", checkpoint=str(tmp_path / "none"), port="0")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    lines = [line for line in errors.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, errors
    missing = tmp_path / "none"
    assert lines[0].startswith(f"ar_generator: HART_CHECKPOINT='{missing}': {missing}: no such folder")


def test_stage_becomes_ready_and_exits_cleanly_on_sigterm(folder: str) -> None:
    port = free_port()
    process = start("decoder", checkpoint=folder, port=str(port), metrics_port=str(free_port()))
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            asked = health_pb2.HealthCheckRequest(service="hart.v1.Decoder")
            end = time.monotonic() + 120
            while True:
                try:
                    if stub.Check(asked, timeout=5).status == health_pb2.HealthCheckResponse.SERVING:
                        break
                except grpc.RpcError:
                    assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
                time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
