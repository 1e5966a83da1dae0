"""gateway: runs with only its own dependency group installed."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from benchmarks.harness.processes import ROOT, Process

MAX_MODULES = 900


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements_of(groups: dict[str, list[Any]], name: str) -> list[str]:
    """A dependency group's requirements, including those of included groups."""
    found = []
    for entry in groups[name]:
        found += [entry] if isinstance(entry, str) else requirements_of(groups, entry["include-group"])
    return found


def closure(requirements: list[str]) -> set[str]:
    """The names of all installed distributions that these requirements bring."""
    found: set[str] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        key = normalised(requirement.name)
        for wanted in ["", *requirement.extras]:
            if f"{key}[{wanted}]" not in found:
                found.add(f"{key}[{wanted}]")
                waiting += [(Requirement(text), wanted) for text in metadata.requires(key) or []]
    return {name.partition("[")[0] for name in found}


def gateway_group() -> set[str]:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    return closure(requirements_of(groups, "gateway"))


def test_gateway_dependencies_bring_no_torch() -> None:
    names = gateway_group()
    assert {"grpcio", "tritonclient", "pyjwt"} <= names, "the closure must be the real one"
    assert not names & {"torch", "transformers", "tokenizers", "safetensors", "pillow"}


RUN = """
import importlib.abc, runpy, sys
forbidden = set(sys.argv.pop().split(","))
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
runpy.run_module("gateway", run_name="__main__", alter_sys=True)
"""


def test_gateway_runs_with_its_own_dependencies_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = gateway_group() | {"hart-client"}
    packages = metadata.packages_distributions()
    absent = {package for package, names in packages.items() if not {normalised(name) for name in names} & allowed}
    absent |= {"kernels", "model", "services", "training"}
    assert {"torch", "transformers", "PIL", "pytest"} <= absent
    script = tmp_path / "run.py"
    script.write_text(RUN)
    popen = subprocess.Popen

    def popen_without_packages(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        environment = {**options.pop("env"), "PYTHONPATH": str(ROOT)}
        return popen([sys.executable, str(script), ",".join(sorted(absent))], env=environment, **options)

    monkeypatch.setattr(subprocess, "Popen", popen_without_packages)
    process = Process("gateway", tmp_path, {"api_keys": "a=b"}).start()
    try:
        process.await_ready()
    finally:
        assert process.stop() == 0


def test_gateway_start_imports_at_most_nine_hundred_modules() -> None:
    # Imports are nearly all of a start. Their number is the same on a busy machine, which seconds are not.
    command = [sys.executable, "-c", "import sys, gateway.assembly; print(len(sys.modules))"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client")])}
    imported = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)
    assert int(imported.stdout) < MAX_MODULES
