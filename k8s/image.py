"""Builds container images by hand, without an engine: runs the Dockerfile's COPY and RUN steps in a clean folder. Knows
the Dockerfile's syntax, not the content; `k8s.proof` runs the result."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from k8s.tools import tool

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = ROOT / "Dockerfile"
PYPI = "https://pypi.org/simple"


class Failed(Exception):
    """A step of a container image failed."""


def steps(stage: str) -> list[tuple[str, str]]:
    """The instructions of a stage of the Dockerfile: keyword and arguments, continued lines joined."""
    whole = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", whole).splitlines()
    found: list[tuple[str, str]] = []
    inside = False
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            inside = rest.split(" AS ")[-1].strip() == stage
        elif inside and word:
            found.append((word, rest.strip()))
    if not found:
        raise Failed(f"{DOCKERFILE}: no stage {stage}")
    return found


def copied(stage: str) -> list[str]:
    """The paths that a stage copies from the checkout."""
    copies = [rest for word, rest in steps(stage) if word == "COPY" and not rest.startswith("--from")]
    return [source for rest in copies for source in rest.split()[:-1] if not source.startswith("--")]


def commands(stage: str) -> list[str]:
    """The commands that a stage runs, without cache mounts."""
    return [re.sub(r"--mount=\S+\s*", "", rest) for word, rest in steps(stage) if word == "RUN"]


def arguments(stage: str) -> dict[str, str]:
    """The build arguments of a stage: from the environment, else their defaults."""
    found = dict(rest.partition("=")[::2] for word, rest in steps(stage) if word == "ARG")
    return {name: os.environ.get(name, default) for name, default in found.items()}


@dataclass(frozen=True)
class Built:
    """The content of a container image."""

    python: Path
    app: Path
    notes: str = ""
    """Deviations from the Dockerfile."""

    @property
    def megabytes(self) -> float:
        """Size without the base image."""
        folders = (self.python.parent.parent, self.app)
        files = (path for folder in folders for path in folder.rglob("*"))
        return sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink()) / 1e6

    @property
    def packages(self) -> set[str]:
        """Distributions installed, each as name==version."""
        lines = run([self.python, "-m", "pip", "list", "--format=freeze"], self.app).split()
        return {_plain(name) + "==" + version for name, version in (line.split("==") for line in lines)}

    def bill(self) -> int:
        """The number of packages in the bill of materials that syft writes. Raises Failed if an installed one is
        missing."""
        folder = f"dir:{self.python.parent.parent}"
        words: list[str | Path] = [tool("syft"), "scan", folder, "--quiet", "--output", "spdx-json"]
        listed = json.loads(run(words, self.app, more={"SYFT_CHECK_FOR_APP_UPDATE": "false"}))["packages"]
        named = {f"{_plain(one['name'])}=={one.get('versionInfo', '')}" for one in listed}
        if missing := sorted(self.packages - named):
            raise Failed(f"syft's bill of materials lacks {', '.join(missing)}")
        return len(listed)


def build(here: Path, image: str, packages: str) -> Built:
    """`image` ("image-gateway") with the packages of `packages` ("packages-gateway"), in the folder `here`. Raises
    Failed with the step that failed."""
    app, home, tools = here / "app", here / "venv", here / "tools"
    app.mkdir(parents=True)
    for source in {*copied(packages), *copied("stubs"), *copied(image)}:
        _copy(source, app)
    words, notes = _reachable(arguments(packages))
    for stage, place in (("stubs", tools), (packages, home)):
        venv.create(place, with_pip=True)
        for command in commands(stage):
            changed = command.replace("/opt/venv", str(home)).replace("python -m venv " + str(home), "true")
            run(["bash", "-euo", "pipefail", "-c", changed], app, place / "bin", words)
    shutil.rmtree(tools)
    return Built(home / "bin/python", app, notes)


def _copy(source: str, app: Path) -> None:
    place = app / source.rstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    if (ROOT / source).is_dir():
        left_out = shutil.ignore_patterns("*_pb2*", "__pycache__")
        shutil.copytree(ROOT / source, place, dirs_exist_ok=True, ignore=left_out)
    else:
        shutil.copy(ROOT / source, place)


def _reachable(words: dict[str, str]) -> tuple[dict[str, str], str]:
    """The arguments, with PyPI in place of an index that this machine cannot reach, and a note of that."""
    index = words.get("TORCH_INDEX", "")
    try:
        if index:
            socket.getaddrinfo(urlsplit(index).hostname, 443)
    except OSError:
        return {**words, "TORCH_INDEX": PYPI}, f"; {index} cannot be reached here: torch from pip's other sources"
    return words, ""


def resolve(packages: str) -> str:
    """Resolve the packages of a stage with the public index, without downloading them: they may be too large here.

    pip accepts only files whose hash is listed. Raises Failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        for source in copied(packages):
            _copy(source, here)
        venv.create(here / "venv", with_pip=True)
        python = here / "venv/bin/python"
        (command,) = commands(packages)
        words = command.partition("pip install")[2].split()
        public = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
        options = ["--dry-run", "--ignore-installed", "--report", "report.json", *words]
        run([python, "-m", "pip", "install", *options], here, more=public)
        found = [one["metadata"] for one in json.loads((here / "report.json").read_text())["install"]]
    device = sorted(one["name"] for one in found if _plain(one["name"]).startswith(("nvidia-", "cuda-", "triton")))
    return f"{len(found)} packages resolve by their hashes, {len(device)} of them CUDA's and Triton's; not installed"


def _plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name.strip().lower())


def clean_environment() -> dict[str, str]:
    """This process's environment without HART_ and Python variables, with the container image's PYTHONPATH."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HART_", "PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "PYTHONPATH": ".:client"}


def run(words: list[str | Path], where: Path, first: Path | None = None, more: dict[str, str] | None = None) -> str:
    """Run a command in a clean environment and return its output. Raises Failed with the end of its output."""
    path = os.pathsep.join([*([str(first)] if first else []), os.environ["PATH"]])
    environment = {**clean_environment(), "PATH": path, **(more or {})}
    done = subprocess.run([str(word) for word in words], cwd=where, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, words))[-300:]}: {(done.stdout + done.stderr).strip()[-1500:]}")
    return done.stdout
