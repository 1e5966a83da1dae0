"""The work for a GPU: steps in order, each in time, none lost by another's failure; and no GPU is code 2."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import DONE, FAILED, NO_TIME, SKIPPED, TIMED_OUT, Ledger, Step, steps, work


def step(name: str, code: str, seconds: float = 60.0, **more: object) -> Step:
    return Step(name, lambda _: ["-c", code], seconds, **more)  # type: ignore[arg-type]


def run(folder: Path, todo: list[Step], seconds: float = 100.0) -> Ledger:
    ledger = Ledger(folder / "gpu.json")
    work(todo, ledger, time.monotonic() + seconds, os.environ)
    return Ledger(folder / "gpu.json")


def test_a_step_that_fails_costs_the_next_nothing_and_its_output_is_kept(tmp_path: Path) -> None:
    ledger = run(tmp_path, [step("a", "print('why'); raise SystemExit(7)"), step("b", "print('fine')")])
    assert (ledger.state("a"), ledger.state("b")) == (FAILED, DONE)
    assert ledger.content["steps"]["a"]["code"] == 7
    assert ledger.content["steps"]["a"]["tail"] == "why\n"
    assert ledger.content["steps"]["b"]["tail"] == "fine\n"


def test_a_step_that_hangs_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "GRACE_SECONDS", 1.0)
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(99)'])"
    ledger = run(tmp_path, [step("a", child, 2.0), step("b", "")])
    assert (ledger.state("a"), ledger.state("b")) == (TIMED_OUT, DONE)
    assert "time.sleep(99)" not in subprocess.run(["ps", "-ef"], capture_output=True, text=True, check=True).stdout


def test_a_done_step_is_passed_over_and_a_failed_one_is_tried_again(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    append = f"open({str(mark)!r}, 'a').write('x')"
    run(tmp_path, [step("a", append), step("b", "raise SystemExit(1)")])
    ledger = run(tmp_path, [step("a", append), step("b", append)])
    assert (ledger.state("a"), ledger.state("b")) == (DONE, DONE)
    assert mark.read_text() == "xx"


def test_a_step_that_continues_is_started_again_after_a_failure(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"import os; n = os.path.exists({str(mark)!r}); open({str(mark)!r}, 'w'); raise SystemExit(0 if n else 3)"
    ledger = run(tmp_path, [step("a", code, attempts=2)])
    assert ledger.content["steps"]["a"]["attempt"] == 2
    assert ledger.state("a") == DONE


def test_what_is_lacking_is_the_reason_of_a_skipped_step(tmp_path: Path) -> None:
    lacking = step("b", "import sys; sys.exit('no images here') or 0", skip_code=1)
    ledger = run(tmp_path, [step("a", "", required_digests=("no_such_module", "sys")), lacking])
    assert (ledger.state("a"), ledger.state("b")) == (SKIPPED, SKIPPED)
    assert ledger.content["steps"]["a"]["reason"] == "not installed here: no_such_module"
    assert ledger.content["steps"]["b"]["reason"] == "no images here"


def test_nothing_begins_without_time_for_it(tmp_path: Path) -> None:
    assert run(tmp_path, [step("a", "")], seconds=5).state("a") == NO_TIME


def test_training_comes_last_and_gets_the_seconds_that_are_left() -> None:
    found = steps(Path("out"), False)
    assert [one.name for one in found] == ["tests", "kernels", "libraries", "generate", "cluster", "training"]
    assert found[-1].command(90.0) == ["-m", "training.gpu", "--minutes", "1.50"]


@pytest.mark.parametrize("dry", [True, False])
def test_every_command_is_understood_by_its_module(dry: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in steps(tmp_path, dry)[1:]:
        assert module_code([*one.command(60.0), "--help"], monkeypatch) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("module", ["gpu", "generate", "gpu_cluster", "kernels", "libraries", "full_size"])
def test_without_a_gpu_it_says_so_and_ends_with_code_two(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    assert module_code(["-m", f"benchmarks.{module}"], monkeypatch) == 2
    assert "No CUDA device" in capsys.readouterr().err


def module_code(command: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of `python -m MODULE …`, in this process, which has imported torch already."""
    option, module, *arguments = command
    assert option == "-m"
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    return ended.value.code


ONLY = """
import sys
allowed = {"torch", "triton", "transformers", "safetensors", "numpy", "PIL", "tqdm"}
ours = {"benchmarks", "common", "kernels", "model"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        importer = frame.f_globals.get("__name__", "").partition(".")[0]
        if importer in ours | {"__main__"} and name.partition(".")[0] not in allowed | ours | sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{importer} imports {name}")

sys.meta_path.insert(0, Refuse())
import benchmarks.gpu, benchmarks.generate, benchmarks.kernels
"""


def test_drawing_and_kernels_need_no_package_but_what_a_gpu_machine_has() -> None:
    ended = subprocess.run([sys.executable, "-c", ONLY], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
