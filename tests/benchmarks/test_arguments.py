"""benchmarks: invalid arguments end with one line and exit code 2 before anything starts; verdicts are printed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks import batching, full_size, generate, load, load_checkpoint, overhead, telemetry
from benchmarks.drills import __main__ as drills
from benchmarks.harness.cli import run_command
from cluster import supervisor


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a benchmark starts a cluster."""

    def started(*_: object) -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr(supervisor, "up", started)
    monkeypatch.setattr(drills, "running_cluster", started)


@pytest.mark.parametrize(
    ("main", "words", "sentence"),
    [
        (load.main, "--endpoint foo", "endpoint 'foo': expected host:port"),
        (load.main, "--replicas DECODR=2", "DECODR=2: not one of safety, text_encoder, ar_generator, decoder"),
        (load.main, "--replicas decoder", "decoder: not one of"),
        (load.main, "--replicas decoder=17", "decoder=17: not one of"),
        (overhead.main, "--images 0", "argument --images: 0: must be at least 1"),
        (overhead.main, "--checkpoint /nofolder", "error: /nofolder: no such folder"),
        (batching.main, "--checkpoint /nofolder", "error: /nofolder: no such folder"),
        (load_checkpoint.main, "foo float16", "error: foo: no such folder"),
        (load_checkpoint.main, "checkpoints/emoji-128 float17", "float17: not one of float32"),
        (full_size.main, "--device foo", "argument --device: foo: not cpu, cuda or cuda:N"),
        (full_size.main, "--device cpu --rounds 0", "argument --rounds: 0: must be at least 1"),
        (generate.main, "--device foo", "argument --device: foo: not cpu, cuda or cuda:N"),
        (generate.main, "--device cpu --batches 0", "argument --batches: 0: must be at least 1"),
        (drills.main, "kill --minutes 0", "argument --minutes: 0: must be a number over 0"),
    ],
)
def test_invalid_argument_is_one_line_and_exit_code_2(
    main: Callable[[], int],
    words: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", *words.split()])
    try:
        code = run_command(main)
    except SystemExit as ended:
        code = ended.code  # type: ignore[assignment]
    assert code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("main", [drills.main, load_checkpoint.main])
def test_help_omits_the_examples(
    main: Callable[[], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", "--help"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    assert shown.count("python -m") == 1  # the usage
    assert "minutes 10" not in shown


def test_cost_over_its_bound_is_printed_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert telemetry.judged(1.02) == overhead.judged(0.2, 0.215) == 0
    assert capsys.readouterr().out == ""
    assert telemetry.judged(1.0301) == overhead.judged(0.2, 0.25) == 1
    assert capsys.readouterr().out.splitlines() == [
        "  telemetry costs too much: 1.0301 is over 1.02",
        "  the cluster takes too long: over 1.1 times and 25 ms more",
    ]
