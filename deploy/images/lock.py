"""Writes what the container images install, every package with the hashes of all its files (`make image-locks`).

uv resolves pyproject.toml's groups within constraints.txt for Linux on any processor. The CPU variant takes torch from
PyTorch's own index, whose files have other hashes; torch and what only its CUDA build needs are left out there."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
UV = "uv==0.13.9"
PYTHON = "3.11"
STAGE = ["services", "fetch"]
GROUPS = {"stubs": ["stubs"], "gateway": ["gateway"], "stage-gpu": STAGE, "stage-cpu": [*STAGE, "engine"]}
"""File to groups of pyproject.toml."""
WITHOUT_CUDA = "stage-cpu"
OF_CUDA = re.compile(r"^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")
HEAD = "# Written by deploy.images.lock (make image-locks) from pyproject.toml and constraints.txt.\n"


def entries(text: str) -> list[str]:
    """The requirements of a file, each with its hashes: "name==1.0 \\\\\\n    --hash=…"."""
    return [entry for entry in re.split(r"\n(?=\S)", text.strip()) if not entry.startswith("#")]


def without_cuda(text: str) -> str:
    """A file without torch and what only its CUDA build needs."""
    return HEAD + "\n".join(entry for entry in entries(text) if not OF_CUDA.match(entry)) + "\n"


def resolve(uv: Path, groups: list[str]) -> str:
    """The file for these groups."""
    words = [str(uv), "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate"]
    words += ["--python-version", PYTHON, "-c", "constraints.txt"]
    words += [word for group in groups for word in ("--group", group)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return HEAD + "\n".join(entries(done.stdout)) + "\n"


def main() -> int:
    """Write the files."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        home = Path(folder) / "bin"
        subprocess.run([home / "python", "-m", "pip", "install", "--quiet", UV], check=True)
        for name, groups in GROUPS.items():
            text = resolve(home / "uv", groups)
            (FOLDER / f"{name}.txt").write_text(without_cuda(text) if name == WITHOUT_CUDA else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
