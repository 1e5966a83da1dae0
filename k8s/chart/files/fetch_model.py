"""Fetches a stage's model files, or verifies those on the volume; exits with 0 only if every checksum is right.

Runs as the init container of a stage. The chart writes MODEL_SOURCE (JSON): `source`, `files` (path: SHA-256, or the
40 digits of a Git blob's id), `target` (the checkpoint's folder), `into` (a folder in it), and `from` (the source's
address). Knows no model. An interrupted download goes on where it stopped, also in another process: huggingface_hub
deletes its partial files, so that 5 GB would start again.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

ATTEMPTS = 5
"""Connections in a row that bring no byte, until a download fails."""
CHUNK = 2**20
SECONDS_PER_LINE = 5.0
"""Between two lines about the progress of a file."""
TIMEOUT = 30.0
"""Seconds without a byte, after which a connection counts as broken."""
LFS_SIGNATURE = b"version https://git-lfs.github.com/spec/"


class Broken(Exception):
    """A file does not match its checksum; the message names it."""


class Cut(Exception):
    """The connection ended before the file did."""


def main() -> int:
    """Fetch or verify as MODEL_SOURCE says; return the exit code."""
    order = json.loads(os.environ["MODEL_SOURCE"])
    try:
        obtain(order)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def obtain(order: Mapping[str, Any]) -> None:
    """Fetch or verify every file of the order. Raises Broken, OSError, and the errors of a source's library."""
    folder = Path(order["target"]) / order["into"]
    fetch = {"huggingFace": from_hugging_face, "s3": from_s3}.get(order["source"])
    for number, (name, digest) in enumerate(sorted(order["files"].items()), 1):
        place = inside(folder, name)
        if fetch and not (place.exists() and digest_of(place, digest) == digest.lower()):
            partial = place.with_name(f"{place.name}.{digest[:8]}.part")  # never continued by other content
            place.parent.mkdir(parents=True, exist_ok=True)
            fetch(order["from"], name, partial)
            compare(partial, name, digest)
            partial.rename(place)  # atomic: complete or absent
        else:
            compare(place, name, digest)
        print(f"[{number}/{len(order['files'])}] {place}: whole, {place.stat().st_size} bytes", flush=True)


def inside(folder: Path, name: str) -> Path:
    """The path of the file. Raises Broken for a path outside the folder."""
    place = folder / name
    if not place.resolve().is_relative_to(folder.resolve()):
        raise Broken(f"{name!r} leads out of {folder}")
    return place


def compare(path: Path, name: str, digest: str) -> None:
    """Raises Broken unless the file exists and has this digest; removes a partial file that has not."""
    if not path.exists():
        raise Broken(f"{name}: no such file")
    found = digest_of(path, digest)
    if found != digest.lower():
        hint = ""
        if is_pointer(path):
            partial = path.suffix == ".part"
            hint = "; the source sent a Git LFS pointer" if partial else "; this is a Git LFS pointer: run git lfs pull"
        if path.suffix == ".part":
            path.unlink()
        raise Broken(f"{name}: {'SHA-256' if len(digest) == 64 else 'Git blob id'} is {found}, not {digest}{hint}")


def is_pointer(path: Path) -> bool:
    """Whether the file is a Git LFS pointer in place of the real file."""
    with path.open("rb") as file:
        return file.read(len(LFS_SIGNATURE)) == LFS_SIGNATURE


def digest_of(path: Path, like: str) -> str:
    """The SHA-256 of a file, hexadecimal; the id of its Git blob where `like` has the 40 digits of one."""
    with path.open("rb") as file:
        if len(like) != 40:
            return hashlib.file_digest(file, "sha256").hexdigest()
        total = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while chunk := file.read(CHUNK):
            total.update(chunk)
        return total.hexdigest()


def from_hugging_face(where: Mapping[str, Any], name: str, place: Path) -> None:
    """Fetch one file of a repository at a revision, with HF_TOKEN if it is set; go on after the bytes in `place`."""
    url = f"{where['endpoint'].rstrip('/')}/{where['repository']}/resolve/{quote(where['revision'] or 'main', safe='')}"
    attempts = 0
    while True:
        before = place.stat().st_size if place.exists() else 0
        try:
            return append(f"{url}/{quote(name)}", name, place)
        except (Cut, OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                if error.code == 416 and before:  # no bytes beyond those that are here: the checksum decides
                    return None
                if error.code not in (408, 429) and error.code < 500:
                    raise Broken(refusal(error, where["repository"])) from None
            attempts = 0 if place.exists() and place.stat().st_size > before else attempts + 1
            if attempts == ATTEMPTS:
                raise Broken(f"{name}: {error}; {before} bytes are kept, the next run goes on after them") from error
            time.sleep(0.1 * 2**attempts)


def append(url: str, name: str, place: Path) -> None:
    """Append the rest of a URL's content to a file. Raises Cut, OSError, HTTPException."""
    start = place.stat().st_size if place.exists() else 0
    with opened(url, {"Range": f"bytes={start}-"} if start else {}) as answer:
        if answer.status != 206:
            start = 0
        length = answer.headers.get("Content-Length")
        end = start + int(length) if length is not None else None
        with place.open("ab" if start else "wb") as file:
            copy(answer.read1, file.write, report=progress(name, start, end))
        if end is not None and place.stat().st_size < end:
            raise Cut(f"the connection ended after {place.stat().st_size} of {end} bytes")


def copy(read: Callable[[int], bytes], write: Callable[[bytes], Any], report: Callable[[int], None]) -> None:
    """Move all bytes from `read` to `write`; `report` gets the size of each portion."""
    while chunk := read(CHUNK):
        write(chunk)
        report(len(chunk))


def progress(name: str, done: int, end: int | None) -> Callable[[int], None]:
    """A function that prints a line about a file every few seconds."""
    begun = printed = time.monotonic()
    start = done

    def report(size: int) -> None:
        nonlocal done, printed
        done += size
        now = time.monotonic()
        if now - printed >= SECONDS_PER_LINE:
            printed = now
            share = f"{100 * done // end}% of {end}" if end else f"{done}"
            print(f"{name}: {share} bytes, {(done - start) / (now - begun) / 1e6:.1f} MB/s", flush=True)

    return report


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects; the token goes to the endpoint's own host alone, not to its storage."""

    def redirect_request(self, req: urllib.request.Request, *rest: Any) -> urllib.request.Request | None:
        following = super().redirect_request(req, *rest)
        if following is not None and urlsplit(following.full_url)[:2] != urlsplit(req.full_url)[:2]:
            following.remove_header("Authorization")
        return following


def opened(url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    """The answer to a GET, with HF_TOKEN if it is set. Raises OSError (HTTPError for a status of 400 or more)."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise Broken(f"{url}: expected an address that begins with http:// or https://")
    token = os.environ.get("HF_TOKEN")
    secret = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers={**headers, **secret})  # noqa: S310 - the scheme is checked
    answer: http.client.HTTPResponse = urllib.request.build_opener(Redirects).open(request, timeout=TIMEOUT)
    return answer


def refusal(error: urllib.error.HTTPError, repository: str) -> str:
    """What a refused request means, with the remedy."""
    advice = {
        401: f"; set HF_TOKEN to a token that may read {repository}",
        403: f"; this token may not read {repository}: accept its licence on its page, or use another token",
        404: f"; no such repository, revision or file; a private {repository} needs HF_TOKEN",
    }
    return f"{error.url}: {error.code} {error.reason}{advice.get(error.code, '')}"


def from_s3(where: Mapping[str, Any], name: str, place: Path) -> None:
    """Fetch one object below a prefix. Credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, else the pod's cloud
    identity, else none."""
    from minio import Minio
    from minio.credentials.providers import ChainedProvider, EnvAWSProvider, IamAwsProvider

    endpoint = urlsplit(where["endpoint"] or "https://s3.amazonaws.com")
    in_cloud = any(name in os.environ for name in ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"))
    known = "AWS_ACCESS_KEY_ID" in os.environ or in_cloud
    client = Minio(
        endpoint.netloc,
        credentials=ChainedProvider([EnvAWSProvider(), IamAwsProvider()]) if known else None,
        region=where["region"] or None,
        secure=endpoint.scheme == "https",
    )
    key = "/".join(part for part in (where["prefix"].strip("/"), name) if part)
    client.fget_object(where["bucket"], key, str(place))


if __name__ == "__main__":
    sys.exit(main())
