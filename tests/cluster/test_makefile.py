"""Makefile: prompts with special characters and incomplete virtual environments; nothing is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cluster.plan import ROOT

VENV = """#!/bin/sh
if [ "$1" = -m ]; then mkdir -p "$3/bin" && ln -sf /bin/true "$3/bin/python" && ln -sf /bin/true "$3/bin/pip"; fi
"""
"""A fake Python: the virtual environment that it creates does nothing."""


def test_make_passes_the_prompt_literally(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(
        (ROOT / "Makefile").read_text() + '\n.PHONY: shown\nshown:\n\t@printf %s "$$PROMPT"\n'
    )

    def shown(*words: str, **environment: str) -> str:
        command = ["make", "-s", "-C", str(tmp_path), "shown", *words]
        return subprocess.run(
            command, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, check=True
        ).stdout

    for prompt in ("a $5 note", "$(shell exit)", 'it\'s "so" `quiet`', "two\nlines", "\U0001f996 #1 \\ %"):
        assert shown(f"PROMPT={prompt}") == prompt
        assert shown(PROMPT=prompt) == prompt
    assert shown() == "a red heart"
    command = ["make", "-s", "-C", str(tmp_path), "-o", "setup-run", "picture", "PROMPT= \n"]
    empty = subprocess.run(command, capture_output=True, text=True)
    assert empty.returncode == 2
    assert "PROMPT is empty" in empty.stderr


def test_incomplete_virtual_environment_is_rebuilt(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    python = tmp_path / "python"
    python.write_text(VENV)
    python.chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to("/bin/true")
    command = ["make", "-C", str(tmp_path), ".venv/.stamp-venv", f"PYTHON={python}"]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / ".venv" / ".stamp-venv").exists()
