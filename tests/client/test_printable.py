"""What a server or a prompt says is printed as text: a terminal obeys none of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import hart as package
import pytest
from google.rpc import error_details_pb2
from hart.v1 import images_pb2

from tests.client import conftest
from tests.client.conftest import Failure, Gateway

HOSTILE = "\x1b[31m\x9b2J\u202eevil\u2028[bold]x[/]\x7f"


def printable(text: str) -> bool:
    return text.replace("\n", "").isprintable()


@pytest.fixture
def hostile(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """A gateway each of whose texts is hostile."""
    report = conftest.report

    def dressed(request: images_pb2.GenerateRequest) -> images_pb2.Report:
        answer = report(request)
        answer.request_id = answer.trace_id = HOSTILE
        answer.warnings.add(code=images_pb2.WARNING_CODE_PROMPT_OUT_OF_VOCABULARY, text=HOSTILE, words=[HOSTILE])
        for call in answer.timings.calls:
            call.stage += HOSTILE
        return answer

    monkeypatch.setattr(conftest, "report", dressed)
    return gateway


def test_an_answer_is_printed_as_text(hart: Any, hostile: Gateway) -> None:
    done = hart("generate", "a red heart")
    assert done.exit_code == 0
    assert "evil" in done.output
    assert printable(done.output), done.output


def test_a_waterfall_is_printed_as_text(hart: Any, hostile: Gateway) -> None:
    Path("a.json").write_text(hart("generate", "x", "--json").stdout)
    assert json.loads(Path("a.json").read_text())["request_id"] == HOSTILE
    done = hart("trace", "a.json")
    assert done.exit_code == 0
    assert printable(done.output), done.output


def test_prompts_are_printed_as_text(hart: Any, hostile: Gateway) -> None:
    Path("prompts.txt").write_text("a \x1b[31mred\u202e heart\n")
    done = hart("generate", "--file", "prompts.txt", "-o", "grid.png")
    assert r"\x1b[31mred" in done.output
    assert printable(done.output), done.output


def test_a_refusal_is_printed_as_text(hart: Any, gateway: Gateway) -> None:
    bad = error_details_pb2.BadRequest(
        field_violations=[error_details_pb2.BadRequest.FieldViolation(field=HOSTILE, description=HOSTILE)]
    )
    for details in ((), (bad,)):
        gateway.failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, HOSTILE, details)
        done = hart("generate", "a red heart")
        assert done.exit_code == 2
        assert "evil" in done.output
        assert printable(done.output), done.output


def test_an_errors_message_can_be_printed(gateway: Gateway) -> None:
    gateway.failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, HOSTILE)
    with package.Client(gateway.endpoint) as client, pytest.raises(package.InvalidRequest) as caught:
        client.generate("a red heart")
    assert str(caught.value).isprintable()


def test_what_a_cluster_says_of_itself_is_printed_as_text(
    hart: Any, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = type(conftest.MODEL)(name=HOSTILE, digest=HOSTILE)
    monkeypatch.setattr(conftest, "MODEL", named)
    for command in ("describe", "status"):
        done = hart(command)
        assert "evil" in done.output
        assert printable(done.output), done.output
