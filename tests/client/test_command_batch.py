"""hart.cli.batch, hart.cli.grid: `hart generate --file`, many prompts into a grid or separate files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from PIL import Image as PillowImage

from tests.client.conftest import Failure, Gateway

RETRY_SOON = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=50_000_000))


def test_prompt_file_becomes_a_grid_in_order(hart: Any, gateway: Gateway) -> None:
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


def test_grids_in_other_formats_embed_recipes_by_default(hart: Any) -> None:
    Path("p.txt").write_text("ünë\n", "utf-8")
    assert hart("generate", "--file", "p.txt", "-o", "g.jpg", "--quality", 50).exit_code == 0
    comment = PillowImage.open("g.jpg").getexif().get_ifd(0x8769)[0x9286]
    assert "ünë" in comment.removeprefix(b"UNICODE\0").decode("utf-16-be")
    assert hart("generate", "--file", "p.txt", "-o", "h.jpg", "--no-embed-metadata").exit_code == 0
    assert not PillowImage.open("h.jpg").getexif()


def test_separate_files_are_numbered_and_listed_in_prompts_txt(hart: Any) -> None:
    Path("p.txt").write_text("one\ntwo\n", "utf-8")
    outcome = hart("generate", "--file", "p.txt", "--separate", "-o", "out", "-n", 2, "--format", "jpeg")
    assert outcome.exit_code == 0, outcome.output
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == ["000000.jpg", "000001.jpg", "000002.jpg", "000003.jpg", "prompts.txt"]
    assert Path("out/prompts.txt").read_text("utf-8").splitlines() == ["one", "one", "two", "two"]


def test_prompt_file_is_never_overwritten(hart: Any, gateway: Gateway) -> None:
    Path("prompts.txt").write_text("one\n\n  two \n", "utf-8")
    outcome = hart("generate", "--file", "prompts.txt", "--separate", "-o", ".", "-n", 2)
    assert outcome.exit_code == 2
    assert "prompts.txt would overwrite --file" in outcome.stderr
    assert Path("prompts.txt").read_text("utf-8") == "one\n\n  two \n"
    outcome = hart("generate", "--file", "prompts.txt", "--separate", "-o", "prompts.txt")
    assert outcome.exit_code == 2
    assert "-o prompts.txt: is a file; --separate requires a folder" in outcome.stderr
    assert not gateway.requests


def test_failed_prompt_does_not_fail_the_others(hart: Any, gateway: Gateway, failing: Any) -> None:
    failure, kind, _, code = failing

    def choose(request: Any) -> None:
        gateway.failure = failure if request.prompt == "bad" else None

    if kind == "Overloaded":
        failure.details = (RETRY_SOON,)  # a batch retries an overloaded server for a limited time
    gateway.before = choose
    Path("p.txt").write_text("good\nbad\nfine\n", "utf-8")
    outcome = hart("generate", "--file", "p.txt", "--separate", "--concurrency", 1, "--json")
    assert outcome.exit_code == code
    assert sorted(path.name for path in Path("pictures").glob("*.png")) == ["000000.png", "000002.png"]
    assert [error["prompt"] for error in json.loads(outcome.stdout)["errors"]] == ["bad"]
    assert "'bad'" in outcome.stderr


def test_long_failed_prompt_is_shown_truncated(hart: Any, gateway: Gateway) -> None:
    gateway.failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, "too long", details=(), times=9)
    Path("p.txt").write_text("x" * 3000, "utf-8")
    outcome = hart("generate", "--file", "p.txt", "--json")
    assert outcome.stderr.splitlines()[-1].endswith(f"'{'x' * 79}…': too long")
    assert json.loads(outcome.stdout)["errors"][0]["prompt"] == "x" * 3000


def test_batch_retries_while_the_server_is_overloaded(hart: Any, gateway: Gateway) -> None:
    gateway.failure = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", details=(RETRY_SOON,), times=2)
    Path("p.txt").write_text("one\n", "utf-8")
    assert hart("generate", "--file", "p.txt").exit_code == 0
    assert len(gateway.requests) == 3


def test_prompt_file_accepts_bom_and_any_line_ending(hart: Any, gateway: Gateway, tmp_path: Path) -> None:
    prompts = ["a red heart", "a\u2028line\x0bseparator", "a cat", "a dog"]
    (tmp_path / "p.txt").write_bytes("\ufeffa red heart\r\n\r\na\u2028line\x0bseparator\n  a cat \ra dog".encode())
    outcome = hart("generate", "--file", "p.txt", "--separate", "-o", "out", "--concurrency", 1)
    assert outcome.exit_code == 0, outcome.output
    assert [request.prompt for request in gateway.requests] == prompts
    assert (tmp_path / "out/prompts.txt").read_text("utf-8").split("\n") == [*prompts, ""]


@pytest.mark.parametrize("command", [["generate"], ["bench", "--rate", 1, "--seconds", 1]], ids=["generate", "bench"])
def test_line_that_is_not_utf8_is_named(hart: Any, gateway: Gateway, tmp_path: Path, command: list[Any]) -> None:
    (tmp_path / "p.txt").write_bytes(b"fine\n\xff\xfe\n")
    outcome = hart(*command, "--file", "p.txt")
    assert outcome.exit_code == 2
    assert "p.txt: line 2 is not UTF-8" in " ".join(outcome.output.split())
    assert not gateway.requests


def test_write_failure_during_a_batch_shows_no_traceback(hart: Any, gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\ntwo\nthree\n")
    gateway.before = lambda _: shutil.rmtree(tmp_path / "out", ignore_errors=True)
    outcome = hart("generate", "--file", "p.txt", "--separate", "-o", "out")
    assert outcome.exit_code == 2, outcome.exception
    assert "out/00000" in outcome.output


@pytest.mark.parametrize(("name", "side"), [("g.webp", 6000), ("g.jpg", 30_000)])
def test_grid_too_large_for_its_format_is_refused_before_sending(
    hart: Any, gateway: Gateway, name: str, side: int
) -> None:
    gateway.side = side
    Path("p.txt").write_text("one\n" * 9, "utf-8")
    outcome = hart("generate", "--file", "p.txt", "-o", name)
    assert outcome.exit_code == 2
    assert f"-o {name}: the grid would be {3 * side} pixels" in outcome.stderr
    assert not gateway.requests
    assert hart("generate", "--file", "p.txt", "-o", "g.png").exit_code == 0
    assert hart("generate", "--file", "p.txt", "-o", name, "--model", "another").exit_code == 0


def test_recipes_too_long_for_a_jpeg_are_omitted_with_a_warning(hart: Any) -> None:
    Path("p.txt").write_text(f"{'long ' * 399}\n" * 17, "utf-8")
    outcome = hart("generate", "--file", "p.txt", "-o", "g.jpg")
    assert outcome.exit_code == 0, outcome.output
    assert "has no recipes" in outcome.stderr
    assert PillowImage.open("g.jpg").size == (40, 32)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("too much"), MemoryError()])
def test_failed_grid_write_keeps_the_images_and_the_old_file(
    hart: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("hart.cli.grid.write_whole", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Path("p.txt").write_text("one\ntwo\n", "utf-8")
    Path("g.jpg").write_bytes(b"old")
    outcome = hart("generate", "--file", "p.txt", "-o", "g.jpg", "--seed", 9)
    assert outcome.exit_code == 1
    assert Path("g.jpg").read_bytes() == b"old"
    kept = Path(outcome.stderr.strip().rpartition("the images are in ")[2])
    assert [PillowImage.open(kept / f"00000{n}.png").getpixel((0, 0)) for n in (0, 1)] == [(9, 0, 0)] * 2
