"""What is recorded of a generation: the engine's phases as spans below the call's, and the latencies as metrics.

Phases come from the engine's own times (vLLM's request timestamps), which are known when a generation has ended; of one
that ended before, from what was seen here: the wait until the first token, and the stream after it.
"""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import Callable

from tidegate.telemetry import catalogue
from tidegate.telemetry import conventions as names
from tidegate.telemetry.setup import Telemetry
from tidegate.telemetry.spans import Span, Value, current_span
from worker.engine import EngineFinish
from worker.errors import to_rpc

CANCELLED = "cancelled"


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
        self._first_tokens = telemetry.metrics.histogram(catalogue.TIME_TO_FIRST_TOKEN)
        self._next_tokens = telemetry.metrics.histogram(catalogue.TIME_PER_OUTPUT_TOKEN)
        self._drifts = telemetry.metrics.histogram(catalogue.RESERVATION_DRIFT)

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
        now, operation = self._clock(), self._operation
        failed = {} if error is None else {names.ERROR_TYPE: _error_type(error)}
        self._durations.under(operation | failed).record(now - record.began_at)
        if record.first_at is None:
            return
        self._first_tokens.under(operation).record(record.first_at - record.began_at)
        if record.output_tokens > 1:
            pace_s = (record.last_at - record.first_at) / (record.output_tokens - 1)
            self._next_tokens.under(operation).record(pace_s)
        if error is None and record.reserved_tokens:
            self._drifts.under({}).record(record.output_tokens / record.reserved_tokens)


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
            attributes: dict[str, Value] = {
                names.GEN_AI_USAGE_INPUT_TOKENS: self._prompt_tokens,
                names.GEN_AI_USAGE_OUTPUT_TOKENS: self.output_tokens,
            }
            if self._finish is not None:
                attributes[names.GEN_AI_RESPONSE_FINISH_REASONS] = (self._finish.reason.value,)
                attributes[names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS] = self._finish.cached_prompt_tokens
            span.set(attributes)
        self._records.end(self, error)

    def _phases(self, call: Span) -> None:
        now, wall_ns, finish = self._records.now(), self._records.wall_ns(), self._finish

        def phase(name: str, *, began_at: float, ended_at: float) -> None:
            span = call.child(f"engine.{name}", {names.PHASE: name, names.PHASE_MEASURED: finish is not None})
            span.start_ns = wall_ns - round((now - began_at) * 1e9)
            span.end(wall_ns - round((now - ended_at) * 1e9))

        if finish is not None:
            decode_at = self.last_at - finish.decode_s
            prefill_at = decode_at - finish.prefill_s
            phase("queued", began_at=prefill_at - finish.queue_s, ended_at=prefill_at)
            phase("prefill", began_at=prefill_at, ended_at=decode_at)
            phase("decode", began_at=decode_at, ended_at=self.last_at)
            return
        first_at = now if self.first_at is None else self.first_at
        phase("prefill", began_at=self.began_at, ended_at=first_at)
        if self.first_at is not None:
            phase("decode", began_at=first_at, ended_at=now)


def _error_type(error: BaseException) -> str:
    if isinstance(error, (GeneratorExit, CancelledError)):
        return CANCELLED
    return to_rpc(error).reason if isinstance(error, Exception) else type(error).__name__
