"""training.core.cli: one sentence for what the user can mend, a traceback for faults of the code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipes.emoji.tokenizer", "--name", "new"], "python -m training.recipes.emoji.images"),
        (["recipes.emoji.transformer", "--name", "new"], "--tokenizer tokenizer: no such folder"),
        (["transformer", "--images", "mine"], "--tokenizer tokenizer: no such folder"),
        (["tokenizer", "--images", "nowhere"], "nowhere: no such folder"),
        (["recipes.emoji.evaluate", "nowhere"], "nowhere: no such folder"),
    ],
    ids=lambda words: words[0],
)
def test_a_command_names_what_is_missing(words: list[str], message: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", f"training.{words[0]}", *words[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    assert message in ran.stderr
