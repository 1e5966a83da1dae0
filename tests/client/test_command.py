"""The command `hart`, through typer's runner, and as a process where signals and streams matter."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from hart.cli.app import app
from PIL import Image as PillowImage
from typer.testing import CliRunner, Result

COMMAND = [sys.executable, "-m", "hart"]
SOON = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=50_000_000))


@pytest.fixture
def hart(gateway: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command in an empty folder against the gateway."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HART_ENDPOINT", gateway.endpoint)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


def test_a_prompt_becomes_a_file_and_its_times_are_told(hart: Any, tmp_path: Path) -> None:
    outcome = hart("generate", "a red heart", "--seed", 7)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout == ""
    assert PillowImage.open(tmp_path / "picture.png").getpixel((0, 0)) == (7, 0, 0)
    for word in ("picture.png", "seed 7", "ar_generator", "gateway", "wall"):
        assert word in outcome.stderr
    assert "note" not in outcome.stderr


def test_every_option_of_a_request_reaches_the_wire(hart: Any, gateway: Any) -> None:
    outcome = hart(
        "generate", "x", "-o", "a.jpg", "--images", 2, "--seed", 5, "--guidance", 0, "--no-smooth", "--top-p", 0.9,
        "--quality", 80, "--preview", 1, "--no-metadata", "--model", "tiny", "--request-id", "r-1", "--timeout", 9,
        "--api-key", "k",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    sent = gateway.requests[0]
    fields = [field.name for field in sent.DESCRIPTOR.fields]
    values = ["tiny", "x", 2, 5, 0, False, 0.9, 2, 80, 1, False, "r-1"]
    assert [getattr(sent, field) for field in fields] == values
    assert all(sent.HasField(field.name) for field in sent.DESCRIPTOR.fields if field.has_presence)
    assert 0 < gateway.remaining[0] <= 9
    assert gateway.metadata[0]["authorization"] == "Bearer k"


def test_several_pictures_are_numbered_and_previews_lie_beside_them(hart: Any, tmp_path: Path) -> None:
    assert hart("generate", "x", "-o", "a.webp", "-n", 2, "--preview", 1).exit_code == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a-0.preview.jpg", "a-0.webp", "a-1.preview.jpg", "a-1.webp"]
    assert PillowImage.open("a-0.webp").format == "WEBP"
    assert PillowImage.open("a-0.preview.jpg").format == "JPEG"


def test_json_is_alone_on_standard_output_with_whole_numbers(hart: Any) -> None:
    outcome = hart("generate", "x", "--seed", 2**53 - 1, "--json")
    answer = json.loads(outcome.stdout)
    assert answer["prompt"] == "x"
    assert answer["images"][0]["seed"] == 2**53 - 1
    assert answer["images"][0]["bytes"] == Path(answer["images"][0]["path"]).stat().st_size
    assert answer["timings"]["calls"][0]["transfer_bytes"] == 2**40
    assert answer["verdict"]["action"] == "allow"
    assert answer["model"] == {"name": "tiny", "digest": "ab" * 32}


def test_an_unfamiliar_prompt_is_hinted_at(hart: Any) -> None:
    outcome = hart("generate", "a zyzzyva")
    assert outcome.exit_code == 0
    assert "not trained on: zyzzyva" in outcome.stderr
    assert "hart describe" in outcome.stderr


def test_every_kind_of_error_has_its_exit_code_and_leaves_no_file(
    hart: Any, gateway: Any, failing: Any, tmp_path: Path
) -> None:
    gateway.failure, kind, facts, code = failing
    outcome = hart("generate", "x", "--json")
    assert outcome.exit_code == code
    assert kind in outcome.stderr
    told = json.loads(outcome.stdout)["error"]
    assert told["kind"] == kind
    assert told["code"] == gateway.failure.code.name
    assert {name: told[name] for name in facts} == json.loads(json.dumps(facts))
    assert not list(tmp_path.iterdir())
    for command in ("describe", "status"):
        assert hart(command).exit_code == code
    for fact in facts.values():
        parts = fact.values() if isinstance(fact, dict) else fact if isinstance(fact, tuple) else [fact]
        assert all(str(part) in outcome.stderr for part in parts)


def test_a_server_that_is_not_there_is_exit_code_4(hart: Any) -> None:
    assert hart("status", "--endpoint", "127.0.0.1:9").exit_code == 4


def test_time_that_runs_out_is_exit_code_5(hart: Any, gateway: Any) -> None:
    gateway.hang = True
    assert hart("generate", "x", "--timeout", 0.2).exit_code == 5


@pytest.mark.parametrize(
    "words",
    [
        ["generate"],
        ["generate", "x", "--file", "p.txt"],
        ["generate", "--file", "nothing.txt"],
        ["generate", "--file", "empty.txt"],
        ["generate", "--file", "p.txt", "--request-id", "r"],
        ["generate", "--file", "p.txt", "--preview", "1"],
        ["generate", "--file", "p.txt", "-o", "-"],
        ["generate", "--file", "p.txt", "--separate", "--format", "gif"],
        ["generate", "--file", "p.txt", "-o", "g.jpg", "--quality", "0"],
        ["generate", "x", "--separate"],
        ["generate", "x", "--format", "gif"],
        ["generate", "x", "-o", "a.gif"],
        ["generate", "x", "-o", "a.png", "--format", "jpeg"],
        ["generate", "x", "-o", "missing/a.png"],
        ["generate", "x", "-o", "-", "--json"],
        ["generate", "x", "-o", "-", "-n", "2"],
        ["generate", "x", "--seed", "-1"],
        ["generate", "x", "--seed", "seven"],
        ["generate", "x", "--timeout", "0"],
        ["generate", "x", "--tls-ca", "missing.pem"],
        ["generate", "x", "--endpoint", "far.example:1", "--api-key", "k"],
        ["trace", "p.txt"],
        ["trace", "missing.json"],
        ["bench", "--rate", "0", "--seconds", "1"],
        ["bench", "--rate", "1", "--seconds", "1", "--arrivals", "bursts"],
        ["paint"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_followed_is_exit_code_2_and_sends_nothing(
    hart: Any, gateway: Any, words: list[str]
) -> None:
    Path("p.txt").write_text("a\n")
    Path("empty.txt").write_text("\n  \n")
    outcome = hart(*words)
    assert outcome.exit_code == 2, outcome.output
    assert outcome.stderr
    assert not gateway.requests


def test_a_file_of_prompts_becomes_a_grid_in_order(hart: Any, gateway: Any) -> None:
    Path("p.txt").write_text("one\n\n two \nthree\n", "utf-8")
    outcome = hart("generate", "--file", "p.txt", "--seed", 9, "--json")
    assert outcome.exit_code == 0, outcome.output
    grid = PillowImage.open("picture.png")
    assert grid.size == (16, 16)
    assert [grid.getpixel(corner) for corner in ((0, 0), (8, 0), (0, 8))] == [(9, 0, 0)] * 3
    assert grid.getpixel((8, 8)) == (128, 128, 128)
    assert [tile["prompt"] for tile in json.loads(grid.text["hart"])] == ["one", "two", "three"]  # type: ignore[attr-defined]
    assert [answer["prompt"] for answer in json.loads(outcome.stdout)["answers"]] == ["one", "two", "three"]
    assert sorted(request.prompt for request in gateway.requests) == ["one", "three", "two"]


def test_grids_in_other_formats_hold_their_recipe_unless_told_not_to(hart: Any) -> None:
    Path("p.txt").write_text("ünë\n", "utf-8")
    assert hart("generate", "--file", "p.txt", "-o", "g.jpg", "--quality", 50).exit_code == 0
    comment = PillowImage.open("g.jpg").getexif().get_ifd(0x8769)[0x9286]
    assert "ünë" in comment.removeprefix(b"UNICODE\0").decode("utf-16-be")
    assert hart("generate", "--file", "p.txt", "-o", "h.jpg", "--no-metadata").exit_code == 0
    assert not PillowImage.open("h.jpg").getexif()


def test_separate_files_are_numbered_and_prompts_txt_names_them_line_by_line(hart: Any) -> None:
    Path("p.txt").write_text("one\ntwo\n", "utf-8")
    outcome = hart("generate", "--file", "p.txt", "--separate", "-o", "out", "-n", 2, "--format", "jpeg")
    assert outcome.exit_code == 0, outcome.output
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == ["000000.jpg", "000001.jpg", "000002.jpg", "000003.jpg", "prompts.txt"]
    assert Path("out/prompts.txt").read_text("utf-8").splitlines() == ["one", "one", "two", "two"]


def test_one_bad_prompt_leaves_the_others_alone(hart: Any, gateway: Any, failing: Any) -> None:
    failure, kind, _, code = failing

    def choose(request: Any) -> None:
        gateway.failure = failure if request.prompt == "bad" else None

    if kind == "Overloaded":
        failure.details = (SOON,)  # A batch waits for a busy server, but not for ever.
    gateway.before = choose
    Path("p.txt").write_text("good\nbad\nfine\n", "utf-8")
    outcome = hart("generate", "--file", "p.txt", "--separate", "--concurrency", 1, "--json")
    assert outcome.exit_code == code
    assert sorted(path.name for path in Path("pictures").glob("*.png")) == ["000000.png", "000002.png"]
    assert [error["prompt"] for error in json.loads(outcome.stdout)["errors"]] == ["bad"]
    assert "'bad'" in outcome.stderr


def test_a_batch_waits_for_a_busy_server(hart: Any, gateway: Any) -> None:
    gateway.failure = SimpleNamespace(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="full", details=(SOON,), times=2)
    Path("p.txt").write_text("one\n", "utf-8")
    assert hart("generate", "--file", "p.txt").exit_code == 0
    assert len(gateway.requests) == 3


def test_describe_shows_what_to_try_and_status_tells_a_missing_stage(hart: Any) -> None:
    outcome = hart("describe")
    assert outcome.exit_code == 0
    assert "a green apple" in outcome.stdout
    assert json.loads(hart("describe", "--json").stdout)["models"][0]["shape"]["scales"] == [1, 2, 4]
    assert json.loads(hart("describe", "--json").stdout)["formats"] == ["png", "jpeg", "webp"]
    outcome = hart("status")
    assert outcome.exit_code == 4  # The fake's decoder has no ready replica.
    assert "0/2" in outcome.stdout
    assert json.loads(hart("status", "--json").stdout)["stages"][0]["ready"] == 2


def test_trace_draws_every_call_of_a_json_answer(hart: Any) -> None:
    Path("a.json").write_text(hart("generate", "x", "--json").stdout)
    outcome = hart("trace", "a.json")
    assert outcome.exit_code == 0, outcome.output
    rows = {line.split()[0]: line for line in outcome.stdout.splitlines() if line.strip()}
    assert "wall 100.0 ms" in outcome.stdout
    for stage in ("safety", "text_encoder", "ar_generator", "decoder"):
        assert "█" in rows[stage]
    assert rows["ar_generator"].index("░") < rows["ar_generator"].index("█")
    assert rows["ar_generator"].rindex("█") <= rows["decoder"].index("█")
    piped = subprocess.run(
        [*COMMAND, "trace", "-"], input=Path("a.json").read_text(), capture_output=True, text=True, check=True
    )
    assert "decoder" in piped.stdout


def test_bench_keeps_its_rate_while_answers_are_missing(hart: Any, gateway: Any) -> None:
    gateway.before = lambda _: time.sleep(0.02)
    outcome = hart("bench", "--rate", 40, "--seconds", 0.5, "--arrivals", "uniform")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)
    assert found["sent"] == found["answered"] == found["pictures"] == 20
    ranks = [found["latency_seconds"][name] for name in ("min", "p50", "p90", "p95", "p99", "max")]
    assert ranks == sorted(ranks)
    assert {request.prompt for request in gateway.requests} == {"a red heart", "a green apple"}
    assert len({request.seed for request in gateway.requests}) == 20

    gateway.hang = True
    outcome = hart("bench", "--rate", 40, "--seconds", 0.5, "--timeout", 0.3, "--arrivals", "uniform")
    found = json.loads(outcome.stdout)
    assert found["errors"] == {"DEADLINE_EXCEEDED": 20}
    assert found["latency_seconds"] is None


def test_percentiles_are_nearest_rank() -> None:
    from hart.cli.bench import percentiles, schedule

    found = percentiles([float(n) for n in range(100, 0, -1)])
    assert found is not None
    assert (found["p50"], found["p90"], found["p99"], found["max"]) == (50, 90, 99, 100)
    arrivals = schedule(100, 50, "poisson", 1)
    assert len(arrivals) == pytest.approx(5000, rel=0.1)
    assert arrivals == sorted(arrivals)


@pytest.mark.parametrize("words", [["generate", "x"], ["generate", "--file", "p.txt"]], ids=" ".join)
def test_ctrl_c_cancels_on_the_server_and_is_exit_code_130(gateway: Any, tmp_path: Path, words: list[str]) -> None:
    gateway.hang = True
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    process = subprocess.Popen(
        [*COMMAND, *words],
        env={**os.environ, "HART_ENDPOINT": gateway.endpoint},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert gateway.started.wait(20)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 130, told
    assert "interrupted" in told
    assert "Traceback" not in told
    assert gateway.cancelled.wait(5)
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]


@pytest.mark.parametrize("moment", ["typer", "grpc", "hart.cli.generate"])
def test_ctrl_c_during_the_imports_is_quiet_and_exit_code_130(tmp_path: Path, moment: str) -> None:
    # An import of this module is the moment: whoever looks for it presses Ctrl-C.
    code = f"""
import os, signal, sys, time
class Finger:
    def find_spec(self, name, path=None, target=None):
        if name == {moment!r}:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(20)
sys.meta_path.insert(0, Finger())
sys.argv = ["hart", "generate", "x"]
from hart.__main__ import main
main()
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "")


def test_what_runs_before_an_interrupt_is_caught_imports_next_to_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import hart; print(set(sys.modules) - before - {'__future__', 'hart'})"
    )
    assert subprocess.check_output([sys.executable, "-I", "-c", code], text=True).strip() == "set()"


def test_a_reader_that_has_enough_is_no_error(gateway: Any, tmp_path: Path) -> None:
    environment = {**os.environ, "HART_ENDPOINT": gateway.endpoint, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*COMMAND, "describe", "--json"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    assert (process.wait(20), told) == (1, b"")


def test_an_answer_that_cannot_be_written_is_a_failure_and_no_wrong_usage(gateway: Any, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        found = subprocess.run(
            [*COMMAND, "generate", "x", "-o", "-"],
            env={**os.environ, "HART_ENDPOINT": gateway.endpoint},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert found.returncode == 1
    assert "No space left" in found.stderr


def test_a_terminal_sees_the_scales_advance(gateway: Any, tmp_path: Path) -> None:
    gateway.before = lambda _: time.sleep(0.3)  # Long enough for the bar to be drawn once at least.
    ours, theirs = pty.openpty()
    environment = {**os.environ, "HART_ENDPOINT": gateway.endpoint, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([*COMMAND, "generate", "x"], env=environment, cwd=tmp_path, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # The other end is closed.
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    assert process.wait(20) == 0
    assert b"accepted" in seen
    assert b"picture.png" in seen
    assert PillowImage.open(tmp_path / "picture.png").size == (8, 8)


def test_one_picture_can_go_to_standard_output(gateway: Any, tmp_path: Path) -> None:
    environment = {**os.environ, "HART_ENDPOINT": gateway.endpoint}
    piped = subprocess.run([*COMMAND, "generate", "x", "-o", "-"], env=environment, cwd=tmp_path, capture_output=True)
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout.startswith(b"\x89PNG")
    assert not list(tmp_path.iterdir())


def test_every_subcommand_has_help_and_none_loads_torch() -> None:
    code = "import sys; from hart.cli import app, batch, report; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
    assert "hart-client" in CliRunner().invoke(app, ["--version"]).output
    for command in ("generate", "describe", "status", "trace", "bench"):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_a_file_has_one_prompt_a_line_whatever_its_marks_and_endings(hart: Any, gateway: Any, tmp_path: Path) -> None:
    prompts = ["a red heart", "a\u2028line\x0bseparator", "a cat", "a dog"]
    (tmp_path / "p.txt").write_bytes("\ufeffa red heart\r\n\r\na\u2028line\x0bseparator\n  a cat \ra dog".encode())
    outcome = hart("generate", "--file", "p.txt", "--separate", "-o", "out", "--concurrency", 1)
    assert outcome.exit_code == 0, outcome.output
    assert [request.prompt for request in gateway.requests] == prompts
    assert (tmp_path / "out/prompts.txt").read_text("utf-8").split("\n") == [*prompts, ""]


def test_prompts_can_come_from_standard_input(gateway: Any, tmp_path: Path) -> None:
    found = subprocess.run(
        [*COMMAND, "generate", "--file", "-", "-o", "grid.png"],
        env={**os.environ, "HART_ENDPOINT": gateway.endpoint},
        cwd=tmp_path,
        input=b"one\ntwo\n",
        capture_output=True,
    )
    assert found.returncode == 0, found.stderr
    assert {request.prompt for request in gateway.requests} == {"one", "two"}


@pytest.mark.parametrize("command", [["generate"], ["bench", "--rate", 1, "--seconds", 1]], ids=["generate", "bench"])
def test_a_line_that_is_no_text_is_named(hart: Any, gateway: Any, tmp_path: Path, command: list[Any]) -> None:
    (tmp_path / "p.txt").write_bytes(b"fine\n\xff\xfe\n")
    outcome = hart(*command, "--file", "p.txt")
    assert outcome.exit_code == 2
    assert "p.txt: line 2 is not UTF-8" in " ".join(outcome.output.split())
    assert not gateway.requests


@pytest.mark.parametrize(
    "words",
    [
        ["--seconds", "inf"],
        ["--seconds", 1e9],
        ["--seconds", 1, "--seed", -1],
        ["--seconds", 1, "--seed", 2**64 - 1],
        ["--seconds", 1, "--format", "gif"],
        ["--seconds", 1, "--images", -1],
    ],
    ids=str,
)
def test_bench_refuses_what_would_fail_every_request_or_never_end(hart: Any, gateway: Any, words: list[Any]) -> None:
    outcome = hart("bench", "--rate", 5, *words)
    assert outcome.exit_code == 2, outcome.output
    assert not gateway.requests


def test_bench_sends_the_empty_prompt_it_was_given(hart: Any, gateway: Any) -> None:
    assert hart("bench", "--rate", 1, "--seconds", 0.5, "--prompt", "").exit_code == 0
    assert [request.prompt for request in gateway.requests] == [""]


@pytest.mark.parametrize(
    "answer",
    [
        {"timings": {}},
        {"timings": 5},
        {"timings": {"wall_seconds": 1, "gateway_seconds": 0, "calls": [{}]}},
        {"timings": {"wall_seconds": "x", "gateway_seconds": 0, "calls": []}},
        {"timings": {"wall_seconds": 1, "gateway_seconds": 0, "calls": 7}},
    ],
)
def test_trace_refuses_what_is_no_answer(hart: Any, tmp_path: Path, answer: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps(answer))
    outcome = hart("trace", "a.json")
    assert outcome.exit_code == 2, outcome.exception
    assert "error:" in outcome.output


def test_a_folder_in_the_pictures_place_is_told_before_anything_is_drawn(
    hart: Any, gateway: Any, tmp_path: Path
) -> None:
    (tmp_path / "out/picture.png").mkdir(parents=True)
    outcome = hart("generate", "x", "-o", "out")
    assert outcome.exit_code == 2
    assert "picture.png: is a folder" in " ".join(outcome.output.split())
    assert not gateway.requests


def test_a_key_that_no_header_can_carry_is_wrong_usage_and_not_repeated(hart: Any, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    for words in (["x"], ["--file", "p.txt"]):
        outcome = hart("generate", *words, "--api-key", "s3cret\nkey")
        assert outcome.exit_code == 2, outcome.exception
        assert "api_key" in outcome.output
        assert "s3cret" not in outcome.output


def test_a_disk_that_fails_in_the_middle_of_many_is_told_without_a_traceback(
    hart: Any, gateway: Any, tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text("one\ntwo\nthree\n")
    gateway.before = lambda _: shutil.rmtree(tmp_path / "out", ignore_errors=True)
    outcome = hart("generate", "--file", "p.txt", "--separate", "-o", "out")
    assert outcome.exit_code == 2, outcome.exception
    assert "out/00000" in outcome.output


def test_a_stage_asked_for_pictures_is_told_to_be_none(hart: Any, gateway: Any) -> None:
    gateway.failure = SimpleNamespace(code=grpc.StatusCode.UNIMPLEMENTED, message="not here", details=(), times=1)
    outcome = hart("generate", "x")
    assert outcome.exit_code == 1
    assert "is the endpoint a gateway" in outcome.output
