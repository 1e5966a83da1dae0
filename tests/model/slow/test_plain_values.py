"""Numbers as libraries have them: taken as Python's own, or refused by name."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_command_writes_to_a_console_of_ascii(tiny: Path, tmp_path: Path) -> None:
    console = {"PYTHONIOENCODING": "ascii:strict", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "model", "a z\u00e9bra \u2764", "--checkpoint", str(tiny)],
        env={**os.environ, **console},
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert b"picture.png" in done.stdout
