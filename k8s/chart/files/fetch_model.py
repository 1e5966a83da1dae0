"""Fetches a stage's model files, or verifies those on the volume; exits with 0 only if every checksum is right.

Runs as the init container of a stage. The chart writes MODEL_SOURCE (JSON): `source`, `files` (path: SHA-256), `target`
(the checkpoint's folder), `into` (a folder in it), and `from` (the source's address). Knows no model.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LFS_SIGNATURE = b"version https://git-lfs.github.com/spec/"


class Broken(Exception):
    """A file does not match its checksum; the message names it."""


def main() -> int:
    """Fetch or verify as MODEL_SOURCE says; return the exit code."""
    order = json.loads(os.environ["MODEL_SOURCE"])
    folder = Path(order["target"]) / order["into"]
    fetch = {"huggingFace": from_hugging_face, "s3": from_s3}.get(order["source"])
    try:
        for name, digest in sorted(order["files"].items()):
            place = inside(folder, name)
            if fetch and not (place.exists() and sha256(place) == digest):
                partial = place.with_name(place.name + ".part")
                place.parent.mkdir(parents=True, exist_ok=True)
                fetch(order["from"], name, partial)
                compare(partial, name, digest)
                partial.rename(place)  # atomic: complete or absent
            else:
                compare(place, name, digest)
            print(f"{place}: whole, {place.stat().st_size} bytes", flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def inside(folder: Path, name: str) -> Path:
    """The path of the file. Raises Broken for a path outside the folder."""
    place = folder / name
    if not place.resolve().is_relative_to(folder.resolve()):
        raise Broken(f"{name!r} leads out of {folder}")
    return place


def compare(path: Path, name: str, digest: str) -> None:
    """Raises Broken unless the file exists and has this SHA-256; removes a partial file that has not."""
    if not path.exists():
        raise Broken(f"{name}: no such file")
    found = sha256(path)
    if found != digest.lower():
        hint = "; this is a Git LFS pointer: run git lfs pull" if is_pointer(path) else ""
        if path.suffix == ".part":
            path.unlink()
        raise Broken(f"{name}: SHA-256 is {found}, not {digest}{hint}")


def is_pointer(path: Path) -> bool:
    """Whether the file is a Git LFS pointer in place of the real file."""
    with path.open("rb") as file:
        return file.read(len(LFS_SIGNATURE)) == LFS_SIGNATURE


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_hugging_face(where: Mapping[str, Any], name: str, place: Path) -> None:
    """Fetch one file of a repository at a revision, with HF_TOKEN if it is set."""
    from huggingface_hub import hf_hub_download

    scratch = place.parent / ".fetching"
    try:
        found = hf_hub_download(
            where["repository"],
            name,
            revision=where["revision"] or None,
            endpoint=where["endpoint"].rstrip("/"),
            local_dir=scratch,
        )
        Path(found).rename(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
