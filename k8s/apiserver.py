"""etcd and kube-apiserver from a folder, started on loopback for a check. Knows nothing of what is checked."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks.harness.ports import free_port
from k8s.tools import tool

START_SECONDS = 60.0


class NotStarted(Exception):
    """The API server did not start; the message has the end of its log."""


def given(kubeconfig: str) -> AbstractContextManager[str]:
    """An API server that runs already."""
    return nullcontext(kubeconfig)


@contextmanager
def running(assets: Path, folder: Path) -> Iterator[str]:
    """Start both programs; yields the path of a kubeconfig for an administrator. Raises NotStarted."""
    for name in ("etcd", "kube-apiserver"):
        if not (assets / name).is_file():
            raise NotStarted(f"{assets} has no {name}")
    clients, peers, port, token = free_port(), free_port(), free_port(), secrets.token_hex(16)
    (folder / "tokens").write_text(f"{token},admin,admin,system:masters\n")
    _write_key(folder / "accounts.key")
    etcd: list[str | Path] = [
        assets / "etcd",
        f"--data-dir={folder}/etcd",
        f"--listen-client-urls=http://127.0.0.1:{clients}",
    ]
    etcd += [f"--advertise-client-urls=http://127.0.0.1:{clients}", f"--listen-peer-urls=http://127.0.0.1:{peers}"]
    server: list[str | Path] = [
        assets / "kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{clients}",
        f"--cert-dir={folder}/certificates",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--token-auth-file={folder}/tokens",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://localhost/",
        f"--service-account-key-file={folder}/accounts.key",
        f"--service-account-signing-key-file={folder}/accounts.key",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--disable-admission-plugins=ServiceAccount",
    ]
    with ExitStack() as programs:
        programs.enter_context(_program(etcd, folder / "etcd.log"))
        process = programs.enter_context(_program(server, folder / "server.log"))
        kubeconfig = _kubeconfig(folder / "kubeconfig", port, token)
        _await_ready(process, kubeconfig, folder / "server.log")
        yield str(kubeconfig)


def _write_key(path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    plain = serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))


@contextmanager
def _program(words: list[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen([str(word) for word in words], stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _await_ready(process: subprocess.Popen[bytes], kubeconfig: Path, log: Path) -> None:
    words = [str(tool("kubectl")), "--kubeconfig", str(kubeconfig), "get", "--raw=/readyz", "--request-timeout=2s"]
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if subprocess.run(words, capture_output=True).returncode == 0:
            return
        time.sleep(0.2)
    raise NotStarted(log.read_text(errors="replace")[-1500:])


def _kubeconfig(path: Path, port: int, token: str) -> Path:
    server = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "live", "cluster": server}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "live", "context": {"cluster": "live", "user": "admin"}}],
        "current-context": "live",
    }
    path.write_text(json.dumps(config))
    return path
