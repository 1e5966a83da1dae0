"""hart.cli: exit codes, and invalid command lines refused with a message before anything is sent or written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.client.conftest import Failure, Gateway


def test_every_error_has_its_exit_code_and_writes_no_file(
    hart: Any, gateway: Gateway, failing: Any, tmp_path: Path
) -> None:
    gateway.failure, kind, facts, code = failing
    outcome = hart("generate", "x", "--json")
    assert outcome.exit_code == code
    assert kind in outcome.stderr
    output = json.loads(outcome.stdout)["error"]
    assert output["kind"] == kind
    assert output["code"] == gateway.failure.code.name
    assert {name: output[name] for name in facts} == json.loads(json.dumps(facts))
    assert not list(tmp_path.iterdir())
    for command in ("describe", "status"):
        assert hart(command, "--timeout", 60).exit_code == code
    for fact in facts.values():
        parts = fact.values() if isinstance(fact, dict) else fact if isinstance(fact, tuple) else [fact]
        assert all(str(part) in outcome.stderr for part in parts)


def test_missing_server_exits_with_4(hart: Any) -> None:
    outcome = hart("status", "--endpoint", "127.0.0.1:9", "--timeout", 60)
    assert outcome.exit_code == 4
    assert "no gateway is running there; `make up` starts one" in outcome.stderr


def test_unknown_host_error_names_the_endpoint_option(hart: Any) -> None:
    outcome = hart("status", "--endpoint", "a..b:1", "--timeout", 60)  # an empty label causes no DNS query
    assert outcome.exit_code == 4
    assert "--endpoint or HART_ENDPOINT" in outcome.stderr


def test_refused_preview_is_named_by_its_option(hart: Any, gateway: Gateway) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="preview_every", description="must be 0 to 6, not 7")
    gateway.failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, "no", (bad,))
    outcome = hart("generate", "x", "--preview", 7)
    assert outcome.exit_code == 2
    assert "--preview: must be 0 to 6" in outcome.stderr


def test_errors_show_the_input_literally(hart: Any, gateway: Gateway) -> None:
    assert "'a:b:c'" in hart("status", "--endpoint", "a:b:c").stderr
    gateway.failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, "prompt: no :heart: and no [bold]")
    assert "no :heart: and no [bold]" in hart("generate", ":heart:").stderr


def test_prompt_without_quotes_is_refused_with_a_hint(hart: Any, gateway: Gateway) -> None:
    outcome = hart("generate", "a", "red", "heart")
    assert outcome.exit_code == 2
    assert 'put the prompt in quotes: hart generate "a red heart"' in outcome.stderr
    assert not gateway.requests


def test_expired_timeout_exits_with_5(hart: Any, gateway: Gateway) -> None:
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
def test_invalid_command_line_exits_with_2_and_sends_nothing(hart: Any, gateway: Gateway, words: list[str]) -> None:
    Path("p.txt").write_text("a\n")
    Path("empty.txt").write_text("\n  \n")
    outcome = hart(*words)
    assert outcome.exit_code == 2, outcome.output
    assert outcome.stderr
    assert not gateway.requests


def test_folder_at_the_output_path_is_refused_before_sending(hart: Any, gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "out/picture.png").mkdir(parents=True)
    outcome = hart("generate", "x", "-o", "out")
    assert outcome.exit_code == 2
    assert "picture.png: is a folder" in " ".join(outcome.output.split())
    assert not gateway.requests


def test_dangling_output_link_is_refused_before_sending(hart: Any, gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("missing/a.png")
    outcome = hart("generate", "x", "-o", "a.png")
    assert outcome.exit_code == 2
    assert f"no such folder: {tmp_path}/missing" in outcome.stderr
    assert not gateway.requests


def test_api_key_invalid_in_a_header_exits_with_2_unshown(hart: Any, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    for words in (["x"], ["--file", "p.txt"]):
        outcome = hart("generate", *words, "--api-key", "s3cret\nkey")
        assert outcome.exit_code == 2, outcome.exception
        assert "api_key" in outcome.output
        assert "s3cret" not in outcome.output


def test_missing_credentials_error_names_the_api_key_options(hart: Any, gateway: Gateway) -> None:
    gateway.failure = Failure(grpc.StatusCode.UNAUTHENTICATED, "credentials are wanted")
    output = hart("generate", "x").stderr
    assert "credentials are wanted" in output
    assert "--api-key or HART_API_KEY" in output


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--endpoint", "far.example:1", "--api-key", "k"], "--insecure"),
        (["--timeout", "inf"], "--timeout"),
    ],
    ids=str,
)
def test_refusal_names_command_line_options(hart: Any, words: list[str], option: str) -> None:
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
def test_invalid_number_is_shown_as_typed(hart: Any, words: list[str], typed: str) -> None:
    outcome = hart(*words)
    assert outcome.exit_code == 2
    assert typed in outcome.stderr


def test_empty_request_id_is_refused_with_its_field(hart: Any, gateway: Gateway) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="request_id", description="must be 1 to 128 visible ASCII characters, not ''")
    gateway.failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, "no", (bad,))
    outcome = hart("generate", "x", "--request-id", "")
    assert outcome.exit_code == 2, outcome.output
    assert "request_id: must be 1 to 128" in outcome.stderr
