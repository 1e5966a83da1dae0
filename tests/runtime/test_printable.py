"""Nothing that a caller writes reaches a log, an error or a trace as a character that cannot be printed."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from google.rpc import error_details_pb2
from hart.printable import escaped as clients_escaped

from runtime import status
from runtime.errors import InvalidRequest, NotFound
from runtime.observability import logs
from runtime.printable import escaped
from tests.runtime.support import detail, refusal

HOSTILE = "a\x9b31m\u2028b\u202ec\x7fd\x1be\nf\ufeff\u200b\U000e0001\ud800"
SAFE = r"a\u009b31m\u2028b\u202ec\u007fd\u001be\u000af\ufeff\u200b\udb40\udc01\ud800"


@pytest.mark.parametrize("escape", [escaped, clients_escaped])
def test_what_cannot_be_printed_is_escaped_and_everything_else_is_left(escape: Any) -> None:
    assert escape(HOSTILE) == SAFE
    assert escape(SAFE) == SAFE
    assert escape("ein rotes Herz ❤ 赤") == "ein rotes Herz ❤ 赤"


@pytest.fixture
def written() -> Any:
    """What the process logs."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("gateway", "INFO", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_log_line_is_one_printable_line_and_reads_back_as_it_was(written: Any) -> None:
    logs.audit("generate", caller=f"issuer#{HOSTILE}", request_id=HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("x").exception("failed: %s", HOSTILE, extra={HOSTILE: HOSTILE})
    lines = written.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert json.loads(lines[0])["audit"]["request_id"] == HOSTILE
    assert json.loads(lines[1])["message"] == f"failed: {HOSTILE}"


def test_an_error_holds_nothing_that_cannot_be_printed() -> None:
    error = InvalidRequest.field(f"parameters[{HOSTILE}]", f"unknown: {HOSTILE}")
    assert str(error).isprintable()
    assert NotFound(HOSTILE).message == SAFE
    proto = status.to_proto(error)
    bad = detail(proto, error_details_pb2.BadRequest)
    assert proto.message.isprintable()
    assert all(v.field.isprintable() and v.description.isprintable() for v in bad.field_violations)


async def test_a_parameters_name_comes_back_escaped(served: Any) -> None:
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    stub = service_pb2_grpc.GRPCInferenceServiceStub(served.channel)
    asked = service_pb2.ModelInferRequest(model_name="decoder")
    asked.parameters["\x9b31m\u202e"].int64_param = 1
    code, proto, text = await refusal(stub.ModelInfer(asked))
    assert code.name == "INVALID_ARGUMENT"
    assert text.isprintable()
    assert r"parameters[\u009b31m\u202e]" in text
    assert all(v.field.isprintable() for v in detail(proto, error_details_pb2.BadRequest).field_violations)
