"""Git LFS pointers: the short text files that a clone without `git lfs pull` has in place of large files.

Source: the Git LFS specification, docs/spec.md of github.com/git-lfs/git-lfs.
"""

from collections.abc import Iterable
from pathlib import Path

SIGNATURE = b"version https://git-lfs.github.com/spec/"
ADVICE = "this is a Git LFS pointer: run git lfs pull"


def is_pointer(path: Path) -> bool:
    """Whether the file is a pointer. Raises OSError if the file cannot be read."""
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def pointers(folders: Iterable[Path]) -> list[Path]:
    """All pointers in the folders, sorted. Subfolders, missing folders and unreadable files are passed over."""
    found = []
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            try:
                if path.is_file() and is_pointer(path):
                    found.append(path)
            except OSError:
                continue  # its own reader raises the error
    return found
