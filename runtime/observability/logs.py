"""JSON logs with the trace's id, and the audit line. Knows no settings beyond the level."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from typing import Any, TextIO

import grpc

from runtime.observability.tracing import current_trace_id
from runtime.printable import escaped

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}
audit_log = logging.getLogger("hart.audit")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, stage, trace_id and whatever was passed as `extra`."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self._stage = stage

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, in which every character can be printed."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "stage": self._stage,
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace_id = current_trace_id()
        if trace_id:
            line["trace_id"] = trace_id
        line |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return escaped(json.dumps(line, ensure_ascii=False, default=str))


def _hide_header(record: logging.LogRecord) -> bool:
    """gRPC logs a header that is not UTF-8 with its value, which may be a key: that goes, the record stays."""
    if record.name.startswith("grpc.") and str(record.msg).startswith("Invalid encoding"):
        record.msg, record.args, record.exc_info = "Invalid encoding of a header", (), None
    return True


def _of_a_call_that_goes_on(record: logging.LogRecord) -> bool:
    """False for gRPC's traceback of an answer that it could not send since the call had ended: no fault of ours."""
    error = record.exc_info[1] if record.exc_info else None
    return not (record.name.startswith("grpc.") and isinstance(error, grpc.aio.InternalError))


def configure(stage: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send the process's logs to `stream` (standard error) as JSON. `level` is for our own loggers and others alike."""
    if stream is None and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8")  # JSON is, whatever the locale; its escapes are no JSON
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(stage))
    handler.addFilter(_hide_header)
    handler.addFilter(_of_a_call_that_goes_on)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("grpc._cython", "asyncio", "urllib3", "kubernetes"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))


def audit(event: str, **fields: object) -> None:
    """One audit line: who asked what and how it ended. Never pass a prompt or a key."""
    audit_log.info(event, extra={"audit": fields})
