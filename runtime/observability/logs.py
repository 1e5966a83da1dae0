"""JSON logs with the trace id, and the audit line."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from typing import Any, TextIO

import grpc

from runtime.observability.tracing import current_span_id, current_trace_id
from runtime.printable import escaped

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}
audit_log = logging.getLogger("hart.audit")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, stage, trace_id, span_id and the fields of `extra`."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self._stage = stage

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of printable characters."""
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
            line |= {"trace_id": trace_id, "span_id": current_span_id()}
        line |= extra_fields(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return escaped(json.dumps(line, ensure_ascii=False, default=str))


def extra_fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields that were passed as `extra`."""
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD}


def _hide_header(record: logging.LogRecord) -> bool:
    """Remove header values from gRPC's records of invalid encodings: a value may be a key. Keeps every record."""
    if record.name.startswith("grpc.") and str(record.msg).startswith("Invalid encoding"):
        record.msg, record.args, record.exc_info = "Invalid encoding of a header", (), None
    return True


def _is_not_late_response(record: logging.LogRecord) -> bool:
    """False for gRPC's traceback about a response to a call that had already ended: it is not an error of the
    server."""
    error = record.exc_info[1] if record.exc_info else None
    return not (record.name.startswith("grpc.") and isinstance(error, grpc.aio.InternalError))


def configure(stage: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Write the process's logs to `stream` (default: standard error) as JSON. `level` applies to all loggers."""
    if stream is None and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8")  # JSON is UTF-8 in any locale; Python's escapes are not JSON
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(stage))
    logging.basicConfig(level=level.upper(), handlers=[_filtered(handler)], force=True)
    for noisy in ("grpc._cython", "asyncio", "urllib3", "kubernetes"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))


def also_to(handler: logging.Handler) -> None:
    """Write the process's logs to this handler too."""
    logging.getLogger().addHandler(_filtered(handler))


def _filtered(handler: logging.Handler) -> logging.Handler:
    handler.addFilter(_hide_header)
    handler.addFilter(_is_not_late_response)
    return handler


def audit(event: str, **fields: object) -> None:
    """Write one audit line: the caller, the request and its outcome. Never pass a prompt or a key."""
    audit_log.info(event, extra={"audit": fields})
