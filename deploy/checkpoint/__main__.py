"""Downloads and checks checkpoints: `python -m deploy.checkpoint fetch|check|digests`; docs/models.md has the steps."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from deploy.checkpoint.repository import Repository, RepositoryError, download, fetch_model

DEFAULT_ENDPOINT = "https://huggingface.co"


def main() -> int:
    """Run the command line; returns 0, or 1 if the folder has problems or the download failed."""
    chosen = _parser().parse_args()
    try:
        return {"check": _check, "fetch": _fetch, "digests": _digests}[chosen.command](chosen)
    except (RepositoryError, OSError) as error:
        print(f"{chosen.command}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.checkpoint", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="download a repository's files, with checksums; goes on where it stopped")
    fetch.add_argument("repository", metavar="OWNER/NAME")
    fetch.add_argument("folder", type=Path, help="the checkpoint folder")
    fetch.add_argument("--into", default="", metavar="PART", help="a folder in it, such as text_encoder or safety")
    fetch.add_argument("--revision", default="main", help="branch, tag or commit (main)")
    fetch.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="paths to download, such as 'llm/*'")
    fetch.add_argument(
        "--endpoint", default=os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT, help="$HF_ENDPOINT, else %(default)s"
    )
    check = commands.add_parser("check", help="load every part and report problems, sizes, memory and settings")
    check.add_argument("folder", type=Path)
    check.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="precision (%(default)s)")
    digests = commands.add_parser("digests", help="print `files` of the chart's values: every file's SHA-256")
    digests.add_argument("folder", type=Path)
    return parser


def _fetch(chosen: argparse.Namespace) -> int:
    repository = Repository(chosen.endpoint, chosen.repository, chosen.revision).pinned()
    files = repository.files(chosen.only)
    size = sum(file.size for file in files)
    print(f"{repository.name} at {repository.revision}: {len(files)} files, {size / 1e6:,.1f} MB", flush=True)
    download(repository, files, chosen.folder, chosen.into)
    print(f"python -m deploy.checkpoint check {chosen.folder}")
    return 0


def _check(chosen: argparse.Namespace) -> int:
    from deploy.checkpoint.inspection import inspect  # a late import: torch takes seconds, and a download needs none
    from deploy.checkpoint.report import lines

    found = inspect(chosen.folder, chosen.dtype)
    print("\n".join(lines(found)))
    return 1 if found.all_problems() else 0


def _digests(chosen: argparse.Namespace) -> int:
    if not chosen.folder.is_dir():
        raise RepositoryError(f"{chosen.folder}: no such folder")
    print("files:")
    for path in sorted(path for path in chosen.folder.rglob("*") if path.is_file()):
        print(f"  {path.relative_to(chosen.folder)}: {fetch_model.digest_of(path, '')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
