"""Fetches a stage's model files, or looks at those that lie there, and ends well only if every one is whole.

Runs as the init container of a stage. MODEL_SOURCE (JSON, written by the chart) says all: `source`, `files` (path:
SHA-256), `target` (the checkpoint's folder), `into` (a folder in it), and `from` (where from).
Knows nothing of the model.
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


class Broken(Exception):
    """A file is not what its checksum says; the message names it."""


def main() -> int:
    """Follow MODEL_SOURCE; the exit code."""
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
                partial.rename(place)  # whole or not there at all
            else:
                compare(place, name, digest)
            print(f"{place}: whole, {place.stat().st_size} bytes", flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def inside(folder: Path, name: str) -> Path:
    """Where the file goes. Raises Broken for a path that leads out of the folder."""
    place = folder / name
    if not place.resolve().is_relative_to(folder.resolve()):
        raise Broken(f"{name!r} leads out of {folder}")
    return place


def compare(path: Path, name: str, digest: str) -> None:
    """Raises Broken unless the file is there and has this SHA-256; a partial file that has not is removed."""
    if not path.exists():
        raise Broken(f"{name}: no such file")
    found = sha256(path)
    if found != digest.lower():
        if path.suffix == ".part":
            path.unlink()
        raise Broken(f"{name}: SHA-256 is {found}, not {digest}")


def sha256(path: Path) -> str:
    """Of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_hugging_face(where: Mapping[str, Any], name: str, place: Path) -> None:
    """One file of a repository at a revision; HF_TOKEN is used where it is set."""
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
    """One object below a prefix, with the credentials of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or of the cloud's
    own identity of this pod, or none."""
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
