"""A repository of a Hugging Face-compatible endpoint: its files, and an order for the chart's fetch_model.py.

The chart runs fetch_model.py in containers by itself, so that it imports nothing of the project. It is loaded here from
its file: one code downloads for both.
"""

from __future__ import annotations

import importlib.util
import json
import re
import urllib.error
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import quote

PROGRAM = Path(__file__).resolve().parents[2] / "k8s" / "chart" / "files" / "fetch_model.py"
NEXT = re.compile(r'<([^>]+)>;\s*rel="?next"?')
"""The next page in a Link header (RFC 8288)."""


class RepositoryError(Exception):
    """The repository cannot be listed or downloaded; the message names it and the remedy."""


def _loaded() -> Any:
    spec = importlib.util.spec_from_file_location("fetch_model", PROGRAM)
    if spec is None or spec.loader is None:
        raise ImportError(f"{PROGRAM}: cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fetch_model = _loaded()


@dataclass(frozen=True)
class File:
    """A file of a repository."""

    path: str
    size: int
    """In bytes."""
    digest: str
    """SHA-256 where the endpoint states it (large files), else the id of the Git blob; hexadecimal."""


@dataclass(frozen=True)
class Repository:
    """A repository at a revision: a branch, a tag or a commit."""

    endpoint: str
    name: str
    revision: str

    def pinned(self) -> Repository:
        """The same at the commit that the revision names now. Raises RepositoryError."""
        answer = self._json(f"{self._api}/revision/{quote(self.revision, safe='')}")[0]
        if not isinstance(answer, dict) or not isinstance(answer.get("sha"), str):
            raise RepositoryError(f"{self._api}: expected an object with sha, not {str(answer)[:100]}")
        return Repository(self.endpoint, self.name, answer["sha"])

    def files(self, patterns: Sequence[str] = ()) -> list[File]:
        """The files whose path matches one of the patterns; without patterns all. Raises RepositoryError."""
        found = sorted(self._entries(), key=lambda file: file.path)
        chosen = [file for file in found if not patterns or any(fnmatch(file.path, pattern) for pattern in patterns)]
        if not chosen:
            raise RepositoryError(
                f"{self.name}: none of {len(found)} files matches {', '.join(patterns) or 'anything'}"
            )
        return chosen

    def order(self, files: Sequence[File], target: Path, into: str = "") -> dict[str, Any]:
        """MODEL_SOURCE of fetch_model.py for these files."""
        where = {"endpoint": self.endpoint, "repository": self.name, "revision": self.revision}
        digests = {file.path: file.digest for file in files}
        return {"source": "huggingFace", "files": digests, "target": str(target), "into": into, "from": where}

    @property
    def _api(self) -> str:
        return f"{self.endpoint.rstrip('/')}/api/models/{self.name}"

    def _entries(self) -> Iterator[File]:
        url: str | None = f"{self._api}/tree/{quote(self.revision, safe='')}?recursive=true"
        while url:
            entries, url = self._json(url)
            try:
                for entry in entries:
                    if entry["type"] == "file":
                        large = entry.get("lfs") or {}
                        yield File(entry["path"], int(entry["size"]), large.get("oid", entry["oid"]))
            except (KeyError, TypeError, AttributeError) as error:
                raise RepositoryError(f"{self._api}: not a list of files: {error!r}") from None

    def _json(self, url: str) -> tuple[Any, str | None]:
        """The answer, and the address of the next page."""
        try:
            with fetch_model.opened(url, {}) as answer:
                following = NEXT.search(answer.headers.get("Link", ""))
                return json.load(answer), following[1] if following else None
        except urllib.error.HTTPError as error:
            raise RepositoryError(fetch_model.refusal(error, self.name)) from None
        except (OSError, ValueError, fetch_model.Broken) as error:
            raise RepositoryError(f"{url}: {error}") from None


def download(repository: Repository, files: Sequence[File], target: Path, into: str = "") -> None:
    """Download the files into `target`/`into`; complete ones are kept. Raises RepositoryError."""
    try:
        fetch_model.obtain(repository.order(files, target, into))
    except (OSError, fetch_model.Broken) as error:
        raise RepositoryError(str(error)) from None
