"""k8s/chart/files/fetch_model.py: complete files or none, from real HTTP servers."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "k8s/chart/files/fetch_model.py"
FILES = {"config.json": b'{"a": 1}', "llm/model.safetensors": os.urandom(300_000)}
REVISION = "a" * 40


class Store(BaseHTTPRequestHandler):
    """A Hugging Face endpoint below /example/model and an S3 bucket below /bucket."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str]]] = []

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path, _, query = self.path.partition("?")
        Store.asked.append((path, self.headers.get("Authorization", "")))
        places = (f"/example/model/resolve/{REVISION}/", "/bucket/models/hart/")
        names = [path.removeprefix(place) for place in places if path.startswith(place)]
        if "location" in query:
            self.send(b'<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>', body)
        elif names and names[0] in FILES:
            self.send(FILES[names[0]], body)
        else:
            self.send(b"", body, 404)

    def send(self, content: bytes, body: bool, status: int = 200) -> None:
        start, end = 0, len(content)
        if require_tool := self.headers.get("Range", "").removeprefix("bytes="):
            first, _, last = require_tool.partition("-")
            start, end, status = int(first or 0), min(int(last or end) + 1, end), 206
        self.send_response(status)
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')  # noqa: S324 - what S3 itself sends
        self.send_header("Last-Modified", "Sun, 01 Nov 2026 10:00:00 GMT")
        self.send_header("X-Repo-Commit", REVISION)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.end_headers()
        if body:
            self.wfile.write(content[start:end])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Store.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def digests() -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


def run(order: dict[str, Any], tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("AWS")}
    variables_of_run = {
        **kept,
        "HOME": str(tmp_path),
        "MODEL_SOURCE": json.dumps(order),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    variables_of_run |= {"HF_HUB_DOWNLOAD_TIMEOUT": "5", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    return subprocess.run(
        [sys.executable, PROGRAM], env=variables_of_run | variables, capture_output=True, text=True, timeout=120
    )


def hugging_face(endpoint: str, target: Path, **changed: Any) -> dict[str, Any]:
    where = {"endpoint": endpoint, "repository": "example/model", "revision": REVISION}
    return {"source": "huggingFace", "files": digests(), "target": str(target), "into": "", "from": where, **changed}


def s3(endpoint: str, target: Path, **changed: Any) -> dict[str, Any]:
    where = {"endpoint": endpoint, "bucket": "bucket", "prefix": "models/hart/", "region": "us-east-1"}
    return {"source": "s3", "files": digests(), "target": str(target), "into": "", "from": where, **changed}


@pytest.mark.parametrize("order", [hugging_face, s3])
def test_files_are_fetched_with_credentials(order: Any, endpoint: str, tmp_path: Path) -> None:
    target = tmp_path / "model"
    secrets = {"HF_TOKEN": "hf_secret", "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret"}
    done = run(order(endpoint, target, into="part"), tmp_path, **secrets)
    assert done.returncode == 0, done.stderr
    found = {str(p.relative_to(target / "part")): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    assert found == FILES
    assert all(header for _, header in Store.asked)
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("order", [hugging_face, s3])
def test_file_with_a_wrong_digest_is_refused_and_removed(order: Any, endpoint: str, tmp_path: Path) -> None:
    target = tmp_path / "model"
    done = run(order(endpoint, target, files={**digests(), "llm/model.safetensors": "0" * 64}), tmp_path)
    assert done.returncode == 1
    assert "llm/model.safetensors: SHA-256 is" in done.stderr
    assert [p.name for p in target.rglob("*") if p.is_file()] == ["config.json"]


@pytest.mark.parametrize("order", [hugging_face, s3])
def test_missing_file_exits_with_1(order: Any, endpoint: str, tmp_path: Path) -> None:
    target = tmp_path / "model"
    assert run(order(endpoint, target, files={"nothing.json": "0" * 64}), tmp_path).returncode == 1
    assert not [p for p in target.rglob("*") if p.is_file()]


def test_complete_files_are_not_fetched_again(endpoint: str, tmp_path: Path) -> None:
    target = tmp_path / "model"
    assert run(hugging_face(endpoint, target), tmp_path).returncode == 0
    Store.asked.clear()
    assert run(hugging_face(endpoint, target), tmp_path).returncode == 0
    assert Store.asked == []


def test_files_on_a_claim_are_verified_and_unchanged(tmp_path: Path) -> None:
    order = {"source": "claim", "target": str(tmp_path), "into": "", "files": digests()}
    assert "config.json: no such file" in run(order, tmp_path).stderr
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert run(order, tmp_path).returncode == 0
    (tmp_path / "config.json").write_bytes(b"{}")
    done = run(order, tmp_path)
    assert done.returncode == 1
    assert "config.json: SHA-256 is" in done.stderr
    assert "git lfs" not in done.stderr
    assert (tmp_path / "config.json").read_bytes() == b"{}"
    (tmp_path / "config.json").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "this is a Git LFS pointer: run git lfs pull" in run(order, tmp_path).stderr


def test_file_outside_the_target_folder_is_refused(tmp_path: Path) -> None:
    order = {"source": "claim", "target": str(tmp_path), "into": "", "files": {"../escape": "0" * 64}}
    done = run(order, tmp_path)
    assert done.returncode == 1
    assert "leads out of" in done.stderr
