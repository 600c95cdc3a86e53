from __future__ import annotations

import json
import logging
import sys

from tests.fakes.spans import standing_in
from tidegate.telemetry.logs import JsonFormatter, TextFormatter
from tidegate.telemetry.trace_context import SAMPLED, TraceContext

_CONTEXT = TraceContext(
    bytes.fromhex("00000000000000000000000000000abc"), bytes.fromhex("0000000000000def"), SAMPLED, ""
)


def record(*, failed: bool = False) -> logging.LogRecord:
    """A line of log."""
    error = None
    if failed:
        try:
            int("broken")
        except ValueError:
            error = sys.exc_info()
    made = logging.LogRecord("gateway.x", logging.WARNING, "x.py", 1, "worker %s is lost", ("w1",), error)
    made.created = 86_400.25
    return made


def test_a_json_line_has_the_trace_it_belongs_to() -> None:
    """So that a log store can join lines and traces."""
    with standing_in(_CONTEXT):
        line = json.loads(JsonFormatter().format(record()))
    assert {
        "timestamp": "1970-01-02T00:00:00.250000Z",
        "severity": "WARNING",
        "logger": "gateway.x",
        "message": "worker w1 is lost",
        "trace_id": f"{0xABC:032x}",
        "span_id": f"{0xDEF:016x}",
    } == line


def test_a_json_line_stays_one_line() -> None:
    """A traceback is a field of it."""
    line = JsonFormatter().format(record(failed=True))
    assert "\n" not in line
    assert "ValueError: invalid literal" in json.loads(line)["exception"]


def test_text_names_the_trace_where_there_is_one() -> None:
    """Outside of a trace a line is as it always was."""
    formatter = TextFormatter("%(levelname)s %(message)s")
    assert "WARNING worker w1 is lost" == formatter.format(record())
    with standing_in(_CONTEXT):
        traced = formatter.format(record())
    assert f"WARNING worker w1 is lost trace_id={0xABC:032x}" == traced
