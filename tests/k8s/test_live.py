"""`make k8s-live` says what it has not checked, and fails where an API server cannot be reached."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.ports import free_port
from k8s import apiserver


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("KUBECONFIG", "KUBEBUILDER_ASSETS")}
    words = [sys.executable, "-m", "k8s.live"]
    return subprocess.run(words, env={**kept, **environment}, capture_output=True, text=True)


def test_without_an_api_server_nothing_is_claimed() -> None:
    done = run()
    assert done.returncode == 0
    assert done.stdout.startswith("NOT CHECKED: no API server here")


def test_a_folder_without_the_programs_is_named(tmp_path: Path) -> None:
    done = run(KUBEBUILDER_ASSETS=str(tmp_path))
    assert done.returncode == 1
    assert f"{tmp_path} has no etcd" in done.stderr


def test_programs_that_end_at_once_are_a_failure_with_their_log(tmp_path: Path) -> None:
    for name in ("etcd", "kube-apiserver"):
        (tmp_path / name).write_text("#!/bin/sh\necho cannot start >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(apiserver.NotStarted, match="cannot start"), apiserver.running(tmp_path, tmp_path):
        pass


def test_a_cluster_that_does_not_answer_is_a_failure(tmp_path: Path) -> None:
    config = apiserver._kubeconfig(tmp_path / "config", free_port(), "token")
    done = run(KUBECONFIG=str(config))
    assert done.returncode == 1
    assert "FAILED: kubectl create" in done.stderr
