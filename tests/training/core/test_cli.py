"""training.core.cli: one sentence for what the user can mend, a traceback for faults of the code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.errors import CheckpointError
from training.core.cli import run_command
from training.data.packages import PackageError

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("error", [CheckpointError("a"), PackageError("a"), FileNotFoundError("a")])
def test_what_the_user_can_mend_is_a_sentence_and_code_2(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise error

    assert run_command(main) == 2
    assert capsys.readouterr().err == "error: a\n"


def test_an_interrupt_is_code_130_and_a_fault_of_ours_keeps_its_traceback() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    def faulty() -> None:
        raise ZeroDivisionError

    assert run_command(interrupted) == 130
    with pytest.raises(ZeroDivisionError):
        run_command(faulty)


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
