"""How a streamed answer is shown: as text for people, or as one JSON object per line for programs."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import IO, Protocol

from google.protobuf.json_format import MessageToDict

from tidegate.client.errors import TidegateError
from tidegate.client.explain import as_json, explain
from tidegate.client.received import Event
from tidegate.client.stats import StreamStats
from tidegate.inference.v1 import generation_pb2

# A model's output is foreign text: escape sequences in it must not reach a terminal. Newline and tab may.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_EVENT_NAMES = {
    generation_pb2.Started: "started",
    generation_pb2.Delta: "delta",
    generation_pb2.Finished: "finished",
}


class AnswerView(Protocol):
    """Shows one answer after the other."""

    def show(self, event: Event) -> None:
        """Show one event at once."""

    def end(self) -> None:
        """Close the answer, complete or not."""

    def summarise(self, stats: StreamStats) -> None:
        """Show how a complete answer came."""

    def fail(self, error: TidegateError) -> None:
        """Show why there is no (further) answer."""


class TextView:
    """The bare text on ``out``; statistics and errors on ``notes``, so that ``out`` can be piped."""

    def __init__(self, out: IO[str], notes: IO[str]) -> None:
        """Control characters are dropped when ``out`` is a terminal."""
        self._out = out
        self._notes = notes
        self._dim, self._red, self._plain = ("\x1b[2m", "\x1b[31m", "\x1b[0m") if notes.isatty() else ("", "", "")

    def show(self, event: Event) -> None:
        """Print new text as it comes."""
        if isinstance(event, generation_pb2.Delta):
            text = "".join(event.text)
            self._out.write(_CONTROLS.sub("", text) if self._out.isatty() else text)
            self._out.flush()

    def end(self) -> None:
        """End the line."""
        print(file=self._out, flush=True)

    def summarise(self, stats: StreamStats) -> None:
        """Print one line of statistics."""
        print(f"{self._dim}{stats_line(stats)}{self._plain}", file=self._notes)

    def fail(self, error: TidegateError) -> None:
        """Print the error and its remedy."""
        for line in explain(error):
            print(f"{self._red}{_CONTROLS.sub('', line)}{self._plain}", file=self._notes)


class JsonView:
    """The JSON form of ``GenerateResponse``, one a line; then ``{"stats": ...}`` or ``{"error": ...}``."""

    def __init__(self, out: IO[str]) -> None:
        """Write to ``out``, flushed line by line."""
        self._out = out

    def show(self, event: Event) -> None:
        """Print the event."""
        self._print({_EVENT_NAMES[type(event)]: MessageToDict(event, preserving_proto_field_name=True)})

    def end(self) -> None:
        """Print nothing: the last line says how it ended."""

    def summarise(self, stats: StreamStats) -> None:
        """Print the statistics."""
        self._print({"stats": asdict(stats)})

    def fail(self, error: TidegateError) -> None:
        """Print the error."""
        self._print({"error": as_json(error)})

    def _print(self, value: object) -> None:
        print(json.dumps(value, ensure_ascii=False), file=self._out, flush=True)


def stats_line(stats: StreamStats) -> str:
    """One line for people, such as ``7 tokens · TTFT 63 ms · ITL 31 ms · 25.1 tok/s · 1 KV block · stop``."""
    parts = (
        _count(stats.output_tokens, "token"),
        f"TTFT {short_time(stats.ttft_s)}",
        f"ITL {short_time(stats.itl_p50_s)}",
        f"{stats.tokens_per_s:.1f} tok/s",
        _count(stats.kv_blocks, "KV block"),
        stats.finish_reason,
    )
    return " · ".join(parts)


# Or it would be rounded to 1e+03 ms.
_A_SECOND = 0.9995


def short_time(duration_s: float | None) -> str:
    """A duration to three digits, in milliseconds or seconds; a dash for None."""
    if duration_s is None:
        return "-"
    return f"{duration_s:.3g} s" if duration_s >= _A_SECOND else f"{duration_s * 1000:.3g} ms"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
