"""The commands of the client's README."""

from __future__ import annotations

import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "client/README.md").read_text("utf-8")


PUBLISHED = "127.0.0.1:50051"


def commands(tool: str) -> list[list[str]]:
    """The arguments of the README's command lines that begin with a tool, without the pipe's rest."""
    found = [shlex.split(line.split("|")[0]) for line in README.splitlines() if line.startswith(f"    {tool} ")]
    assert found
    return found
