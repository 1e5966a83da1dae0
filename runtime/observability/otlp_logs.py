"""Log records over OTLP, with the ids of the current span."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import get_current
from opentelemetry.sdk._logs import LoggerProvider

from runtime.observability import semconv
from runtime.observability.logs import extra_fields

SEVERITIES = {
    logging.DEBUG: SeverityNumber.DEBUG,
    logging.INFO: SeverityNumber.INFO,
    logging.WARNING: SeverityNumber.WARN,
    logging.ERROR: SeverityNumber.ERROR,
    logging.CRITICAL: SeverityNumber.FATAL,
}


class OtlpLogHandler(logging.Handler):
    """Sends each record to the provider. The exporter's own records are not sent: one would cause the next."""

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider
        self.addFilter(lambda record: not record.name.startswith("opentelemetry."))

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record. It never raises: a log line must not end a request."""
        try:
            self._provider.get_logger(record.name).emit(
                LogRecord(
                    timestamp=int(record.created * 1e9),
                    context=get_current(),
                    severity_text=record.levelname,
                    severity_number=SEVERITIES.get(record.levelno, SeverityNumber.UNSPECIFIED),
                    body=record.getMessage(),
                    attributes=_attributes(record),
                )
            )
        except Exception:
            self.handleError(record)


def _attributes(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in extra_fields(record).items():
        if isinstance(value, dict):
            found |= {f"hart.{key}.{name}": _plain(inner) for name, inner in value.items()}
        else:
            found[f"hart.{key}"] = _plain(value)
    if record.exc_info and record.exc_info[0] is not None:
        found[semconv.EXCEPTION_TYPE] = record.exc_info[0].__name__
        found[semconv.EXCEPTION_STACKTRACE] = "".join(traceback.format_exception(*record.exc_info))
    return found


def _plain(value: Any) -> str | bool | int | float:
    return value if isinstance(value, str | bool | int | float) else str(value)
