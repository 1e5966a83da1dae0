"""A wheel's user sees typed answers: mypy and pyright, both strict, on a short program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = (Path(__file__).parent / "typed_program.py").read_text()
MISTAKES = {
    "result.report.prompt_tokens": "result.report.prompt_token",
    "call.duration_seconds + 1.0": 'call.duration_seconds + "s"',
    "preview.width": "preview.widht",
    "model.shape.width": "model.shape.breadth",
    "status.problems": "status.trouble",
    "error.stage.upper()": "error.stage()",
}
"""What an untyped answer would let pass."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    built = subprocess.run([*command, str(ROOT / "client")], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def mypy(program: str, site: Path, folder: Path) -> str:
    """What mypy prints; "" where it finds nothing."""
    (folder / "program.py").write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", f"--config-file={os.devnull}"]
    environment = {**os.environ, "MYPYPATH": str(site)}
    done = subprocess.run([*command, "program.py"], cwd=folder, env=environment, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_mypy_strict_finds_nothing_in_a_right_program_and_every_mistake_in_a_wrong_one(
    site: Path, tmp_path: Path
) -> None:
    assert mypy(PROGRAM, site, tmp_path) == ""
    wrong = PROGRAM
    for right, mistake in MISTAKES.items():
        assert right in wrong
        wrong = wrong.replace(right, mistake)
    assert f"Found {len(MISTAKES)} errors" in mypy(wrong, site, tmp_path)


def test_pyright_strict_finds_nothing(site: Path, tmp_path: Path) -> None:
    tool = shutil.which("pyright")
    if tool is None:
        pytest.skip("pyright is not installed (npm install -g pyright)")
    (tmp_path / "program.py").write_text(PROGRAM)
    chosen = {"include": ["program.py"], "extraPaths": [str(site)], "typeCheckingMode": "strict"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(chosen))
    command = [tool, "--pythonpath", sys.executable, "-p", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
