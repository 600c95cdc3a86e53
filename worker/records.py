"""What is recorded of a generation: the engine's phases as spans below the call's, and the latencies as metrics.

Phases come from the engine's own times (vLLM's request timestamps), which are known when a generation has ended; of one
that ended before, from what was seen here: the wait until the first token, and the stream after it.
"""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import Callable
from typing import Final

from tidegate.telemetry import catalogue
from tidegate.telemetry import conventions as names
from tidegate.telemetry.setup import Telemetry
from tidegate.telemetry.spans import Facts, Form, Names, Span, current_span
from worker.engine import EngineFinish
from worker.errors import to_rpc

CANCELLED = "cancelled"


def _phase(name: str, *, is_measured: bool) -> Form:
    return Form(f"engine.{name}", attributes={names.PHASE: name, names.PHASE_MEASURED: is_measured})


# As the engine has measured them, and as they are seen from here.
_QUEUED: Final = _phase("queued", is_measured=True)
_PREFILL: Final = _phase("prefill", is_measured=True)
_DECODE: Final = _phase("decode", is_measured=True)
_SEEN_PREFILL: Final = _phase("prefill", is_measured=False)
_SEEN_DECODE: Final = _phase("decode", is_measured=False)
_UNFINISHED: Final = Names(names.GEN_AI_USAGE_INPUT_TOKENS, names.GEN_AI_USAGE_OUTPUT_TOKENS)
_FINISHED: Final = Names(
    names.GEN_AI_USAGE_INPUT_TOKENS,
    names.GEN_AI_USAGE_OUTPUT_TOKENS,
    names.GEN_AI_RESPONSE_FINISH_REASONS,
    names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
)


class Records:
    """Records the generations of one worker."""

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        model: str,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._operation = {
            names.GEN_AI_OPERATION_NAME: names.GENERATE,
            names.GEN_AI_PROVIDER_NAME: names.PROVIDER,
            names.GEN_AI_REQUEST_MODEL: model,
        }
        self._clock = clock
        self._wall_ns = wall_ns
        self._durations = telemetry.metrics.histogram(catalogue.REQUEST_DURATION)
        self._duration = self._durations.under(self._operation)  # of those that come to their own end
        self._first_token = telemetry.metrics.histogram(catalogue.TIME_TO_FIRST_TOKEN).under(self._operation)
        self._next_token = telemetry.metrics.histogram(catalogue.TIME_PER_OUTPUT_TOKEN).under(self._operation)
        self._drift = telemetry.metrics.histogram(catalogue.RESERVATION_DRIFT).under({})

    def begin(self, *, prompt_tokens: int) -> Record:
        """A generation is about to run."""
        return Record(self, self._clock(), prompt_tokens=prompt_tokens)

    def now(self) -> float:
        """Seconds, as in ``Record``."""
        return self._clock()

    def wall_ns(self) -> int:
        """The time of day, in nanoseconds."""
        return self._wall_ns()

    def end(self, record: Record, error: BaseException | None) -> None:
        """The generation has ended."""
        duration = self._duration
        if error is not None:
            duration = self._durations.under(self._operation | {names.ERROR_TYPE: _error_type(error)})
        duration.record(self._clock() - record.began_at)
        if record.first_at is None:
            return
        self._first_token.record(record.first_at - record.began_at)
        if record.output_tokens > 1:
            self._next_token.record((record.last_at - record.first_at) / (record.output_tokens - 1))
        if error is None and record.reserved_tokens:
            self._drift.record(record.output_tokens / record.reserved_tokens)


class Record:
    """One generation. Tell it of each output, and end it once."""

    def __init__(self, records: Records, began_at: float, *, prompt_tokens: int) -> None:
        """Use ``Records.begin``."""
        self.began_at = began_at
        self.first_at: float | None = None
        self.last_at = began_at
        self.output_tokens = 0
        self.reserved_tokens = 0
        self._records = records
        self._finish: EngineFinish | None = None
        self._prompt_tokens = prompt_tokens

    def output(self, tokens: int, finish: EngineFinish | None) -> None:
        """The engine has given something."""
        self.last_at = self._records.now()
        if self.first_at is None:
            self.first_at = self.last_at
        self.output_tokens += tokens
        self._finish = finish

    def end(self, error: BaseException | None) -> None:
        """The generation is over; ``error`` is why, if it did not come to its own end."""
        span = current_span()
        if span is not None:
            self._phases(span)
            tokens, finish = (self._prompt_tokens, self.output_tokens), self._finish
            if finish is None:
                span.set(Facts(_UNFINISHED, tokens))
            else:
                span.set(Facts(_FINISHED, (*tokens, (finish.reason.value,), finish.cached_prompt_tokens)))
        self._records.end(self, error)

    def _phases(self, call: Span) -> None:
        now, wall_ns, finish = self._records.now(), self._records.wall_ns(), self._finish
        if finish is not None:
            last_ns = wall_ns - _ns(now - self.last_at)
            decode_ns = last_ns - _ns(finish.decode_s)
            prefill_ns = decode_ns - _ns(finish.prefill_s)
            call.child(_QUEUED, prefill_ns - _ns(finish.queue_s)).end(prefill_ns)
            call.child(_PREFILL, prefill_ns).end(decode_ns)
            call.child(_DECODE, decode_ns).end(last_ns)
            return
        first_ns = wall_ns if self.first_at is None else wall_ns - _ns(now - self.first_at)
        call.child(_SEEN_PREFILL, wall_ns - _ns(now - self.began_at)).end(first_ns)
        if self.first_at is not None:
            call.child(_SEEN_DECODE, first_ns).end(wall_ns)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _error_type(error: BaseException) -> str:
    if isinstance(error, (GeneratorExit, CancelledError)):
        return CANCELLED
    return to_rpc(error).reason if isinstance(error, Exception) else type(error).__name__
