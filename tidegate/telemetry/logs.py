"""Logs: text for people, or one JSON object a line, both with the trace that a line belongs to."""

from __future__ import annotations

import json
import logging
import time
from typing import Literal

from tidegate.telemetry.trace_context import current

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
        context = current()
        trace = "" if context is None else f" trace_id={context.trace_id.hex()}"
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
        context = current()
        if context is not None:
            line |= {"trace_id": context.trace_id.hex(), "span_id": context.span_id.hex()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
