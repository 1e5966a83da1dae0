"""Exit codes, and command lines that cannot be followed: told in a sentence, with nothing sent or left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.client.conftest import Failure


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
        assert hart(command, "--timeout", 60).exit_code == code
    for fact in facts.values():
        parts = fact.values() if isinstance(fact, dict) else fact if isinstance(fact, tuple) else [fact]
        assert all(str(part) in outcome.stderr for part in parts)


def test_a_server_that_is_not_there_is_exit_code_4(hart: Any) -> None:
    outcome = hart("status", "--endpoint", "127.0.0.1:9", "--timeout", 60)
    assert outcome.exit_code == 4
    assert "no gateway is running there; `make up` starts one" in outcome.stderr


def test_a_host_that_is_not_found_is_told_with_the_option_that_names_it(hart: Any) -> None:
    outcome = hart("status", "--endpoint", "a..b:1", "--timeout", 60)  # no name server is asked for an empty label
    assert outcome.exit_code == 4
    assert "--endpoint or HART_ENDPOINT" in outcome.stderr


def test_a_refused_preview_is_told_by_its_option(hart: Any, gateway: Any) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="preview_every", description="must be 0 to 6, not 7")
    gateway.failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, "no", (bad,))
    outcome = hart("generate", "x", "--preview", 7)
    assert outcome.exit_code == 2
    assert "--preview: must be 0 to 6" in outcome.stderr


def test_what_was_typed_is_told_as_it_was_typed(hart: Any, gateway: Any) -> None:
    assert "'a:b:c'" in hart("status", "--endpoint", "a:b:c").stderr
    gateway.failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, "prompt: no :heart: and no [bold]")
    assert "no :heart: and no [bold]" in hart("generate", ":heart:").stderr


def test_a_prompt_without_quotes_is_told_to_have_them(hart: Any, gateway: Any) -> None:
    outcome = hart("generate", "a", "red", "heart")
    assert outcome.exit_code == 2
    assert 'put the prompt in quotes: hart generate "a red heart"' in outcome.stderr
    assert not gateway.requests


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
        ["generate", "x", "--concurrency", "3"],
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


def test_a_folder_in_the_pictures_place_is_told_before_anything_is_drawn(
    hart: Any, gateway: Any, tmp_path: Path
) -> None:
    (tmp_path / "out/picture.png").mkdir(parents=True)
    outcome = hart("generate", "x", "-o", "out")
    assert outcome.exit_code == 2
    assert "picture.png: is a folder" in " ".join(outcome.output.split())
    assert not gateway.requests


def test_a_link_into_nowhere_is_told_before_anything_is_drawn(hart: Any, gateway: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("missing/a.png")
    outcome = hart("generate", "x", "-o", "a.png")
    assert outcome.exit_code == 2
    assert f"no such folder: {tmp_path}/missing" in outcome.stderr
    assert not gateway.requests


def test_a_key_that_no_header_can_carry_is_wrong_usage_and_not_repeated(hart: Any, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    for words in (["x"], ["--file", "p.txt"]):
        outcome = hart("generate", *words, "--api-key", "s3cret\nkey")
        assert outcome.exit_code == 2, outcome.exception
        assert "api_key" in outcome.output
        assert "s3cret" not in outcome.output


def test_missing_credentials_are_told_with_the_options_that_give_them(hart: Any, gateway: Any) -> None:
    gateway.failure = Failure(grpc.StatusCode.UNAUTHENTICATED, "credentials are wanted")
    told = hart("generate", "x").stderr
    assert "credentials are wanted" in told
    assert "--api-key or HART_API_KEY" in told


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--endpoint", "far.example:1", "--api-key", "k"], "--insecure"),
        (["--timeout", "inf"], "--timeout"),
    ],
    ids=str,
)
def test_a_refusal_names_the_commands_own_options(hart: Any, words: list[str], option: str) -> None:
    for command in (["generate", "x"], ["status"]):
        outcome = hart(*command, *words)
        assert outcome.exit_code == 2
        assert option in outcome.stderr
        assert not any(python in outcome.stderr for python in ("None", "True", "=True"))


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (["generate", "x", "--seed", "abc"], "'abc'"),
        (["generate", "x", "--seed", "7.5"], "'7.5'"),
        (["generate", "x", "--guidance", "strong"], "'strong'"),
        (["generate", "x", "--timeout", "abc"], "'abc'"),
        (["generate", "x", "--timeout", "0"], "0 is not"),
        (["generate", "x", "--timeout", "nan"], "nan is not"),
        (["generate", "--file", "p.txt", "--concurrency", "0"], "0 is not"),
        (["bench", "--seconds", "1", "--rate", "-2"], "-2 is not"),
        (["bench", "--rate", "1", "--seconds", "ten"], "'ten'"),
    ],
    ids=str,
)
def test_a_number_that_is_none_is_told_as_it_was_typed(hart: Any, words: list[str], typed: str) -> None:
    outcome = hart(*words)
    assert outcome.exit_code == 2
    assert typed in outcome.stderr


def test_an_empty_request_id_is_refused_in_a_sentence(hart: Any, gateway: Any) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="request_id", description="must be 1 to 128 visible ASCII characters, not ''")
    gateway.failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, "no", (bad,))
    outcome = hart("generate", "x", "--request-id", "")
    assert outcome.exit_code == 2, outcome.output
    assert "request_id: must be 1 to 128" in outcome.stderr
