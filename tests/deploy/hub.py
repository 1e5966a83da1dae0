"""A small Hugging Face-compatible endpoint: lists in pages, ranges, a token, storage on another host, faults."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPOSITORY = "example/model"
COMMIT = "a" * 40
LARGE = 1000
"""Files above this size are in Git LFS: the list has their SHA-256."""


@dataclass
class Hub:
    """What the endpoint holds and does; tests change it."""

    files: dict[str, bytes]
    served: dict[str, bytes] = field(default_factory=dict)
    """Sent in place of a file's own content."""
    token: str = ""
    cut_after: int = 0
    """The next transfer of more bytes ends after so many, once."""
    refuses_after_a_cut: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Host and path, range and authorization of each request."""
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def entries(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = [{"type": "directory", "path": "llm", "size": 0, "oid": "0" * 40}]
        for path, content in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            large = {"lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}}
            listed.append({"type": "file", "path": path, "size": len(content), "oid": blob})
            listed[-1] |= large if len(content) > LARGE else {}
        return listed


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        hub, (path, _, query) = self.hub, self.path.partition("?")
        host, given = self.headers["Host"], self.headers.get("Authorization", "")
        hub.asked.append((f"{host.partition(':')[0]}{path}", self.headers.get("Range", ""), given))
        api, files, storage = f"/api/models/{REPOSITORY}", f"/{REPOSITORY}/resolve/{COMMIT}/", "/storage/"
        if not path.startswith(storage) and hub.token and given != f"Bearer {hub.token}":
            self.reply(b"", 401)
        elif path == f"{api}/revision/main":
            self.reply(json.dumps({"sha": COMMIT}).encode())
        elif path == f"{api}/tree/{COMMIT}":
            self.page(second="cursor" in query)
        elif path.startswith(files) and path.removeprefix(files) in hub.files:
            self.reply(b"", 302, Location=f"http://localhost:{hub.port}{storage}{path.removeprefix(files)}")
        elif path.startswith(storage):
            name = path.removeprefix(storage)
            self.content(hub.served.get(name, hub.files[name]))
        else:
            self.reply(b"", 404)

    def page(self, second: bool) -> None:
        half = len(self.hub.entries()) // 2
        entries = self.hub.entries()[half:] if second else self.hub.entries()[:half]
        following = f'<{self.hub.endpoint}{self.path}&cursor=2>; rel="next"'
        self.reply(json.dumps(entries).encode(), Link="" if second else following)

    def content(self, whole: bytes) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        rest = whole[start:]
        if start and not rest:
            self.reply(b"", 416)
        elif self.hub.cut_after and len(rest) > self.hub.cut_after:
            sent, self.hub.cut_after = rest[: self.hub.cut_after], 0
            self.reply(sent, 206 if start else 200, length=len(rest))
            self.close_connection = True
            self.hub.token = "another" if self.hub.refuses_after_a_cut else self.hub.token
        else:
            self.reply(rest, 206 if start else 200)

    def reply(self, content: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Hub]:
    """A running endpoint."""
    hub = Hub(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
