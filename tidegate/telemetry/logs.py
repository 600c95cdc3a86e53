"""Logs: text for people, or one JSON object a line, both with the trace that a line belongs to."""

from __future__ import annotations

import json
import logging
import time
from typing import Literal

from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

LogFormat = Literal["text", "json"]

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def set_up_logs(log_format: LogFormat) -> None:
    """Log from INFO on, to stderr. Once in a process."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class TextFormatter(logging.Formatter):
    """Appends the trace's id, where there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """See ``logging.Formatter``."""
        span = get_current_span().get_span_context()
        trace = f" trace_id={format_trace_id(span.trace_id)}" if span.is_valid else ""
        return super().formatMessage(record) + trace


class JsonFormatter(logging.Formatter):
    """Names as in OpenTelemetry's log data model; time in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        seconds, fraction = divmod(record.created, 1)
        line: dict[str, object] = {
            "timestamp": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(fraction * 1e6):06d}Z",
            "severity": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        span = get_current_span().get_span_context()
        if span.is_valid:
            line |= {"trace_id": format_trace_id(span.trace_id), "span_id": format_span_id(span.span_id)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
