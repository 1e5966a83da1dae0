"""training.core.cli: one sentence for what the user can mend, a traceback for faults of the code."""

import pytest

from model.errors import CheckpointError
from training.core.cli import run_command
from training.data.packages import PackageError


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
