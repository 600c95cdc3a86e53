from __future__ import annotations

from asyncio import CancelledError

import pytest

from tests.fakes.clock import ManualClock
from tests.fakes.spans import KeptSpans, standing_in
from tidegate.telemetry.setup import Telemetry
from worker.engine import EngineFinish, FinishReason
from worker.errors import DeadlineExceededError
from worker.records import Record, Records


class Recorded:
    """A generation below a call's span, by a clock of our own."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self._spans = KeptSpans()
        self.call = self._spans.begin()
        self.telemetry = Telemetry.silent(self._spans.tracer)
        self.records = Records(self.telemetry, model="m", clock=self.clock, wall_ns=lambda: round(self.clock() * 1e9))

    def begin(self) -> Record:
        """Three tokens of prompt."""
        return self.records.begin(prompt_tokens=3)

    @property
    def phases(self) -> list[tuple[str, float, float]]:
        """Name, beginning and end of each of the engine's phases."""
        return [(span.name, span.start_ns / 1e9, span.end_ns / 1e9) for span in self._spans.ended]

    def metric(self, name: str, **labels: str) -> float:
        """One sample."""
        value = self.telemetry.metrics.registry.get_sample_value(name, labels)
        assert value is not None
        return value


_OPERATION = {
    "gen_ai_operation_name": "text_completion",
    "gen_ai_provider_name": "tidegate",
    "gen_ai_request_model": "m",
}


def test_phases_are_those_that_the_engine_measured() -> None:
    """Laid end to end, up to the last output."""
    recorded = Recorded()
    began = recorded.clock()
    with standing_in(recorded.call):
        record = recorded.begin()
        recorded.clock.advance(3)
        record.output(1, None)
        recorded.clock.advance(4)
        finish = EngineFinish(reason=FinishReason.STOP, cached_prompt_tokens=2, queue_s=1, prefill_s=1.5, decode_s=4)
        record.output(1, finish)
        recorded.clock.advance(1)
        record.end(None)
    assert [
        ("engine.queued", began + 0.5, began + 1.5),
        ("engine.prefill", began + 1.5, began + 3),
        ("engine.decode", began + 3, began + 7),
    ] == recorded.phases
    attributes = recorded.call.attributes
    assert (3, 2, 2, ("stop",)) == (
        attributes["gen_ai.usage.input_tokens"],
        attributes["gen_ai.usage.output_tokens"],
        attributes["gen_ai.usage.cache_read.input_tokens"],
        attributes["gen_ai.response.finish_reasons"],
    )


@pytest.mark.parametrize("error", [GeneratorExit(), CancelledError()])
def test_a_stream_that_was_cancelled_has_phases_as_seen_from_here(error: BaseException) -> None:
    """The engine has told nothing, and no span is left open."""
    recorded = Recorded()
    began = recorded.clock()
    with standing_in(recorded.call):
        record = recorded.begin()
        recorded.clock.advance(3)
        record.output(1, None)
        recorded.clock.advance(4)
        record.end(error)
    assert [("engine.prefill", began, began + 3), ("engine.decode", began + 3, began + 7)] == recorded.phases
    assert 1 == recorded.metric("gen_ai_server_request_duration_seconds_count", **_OPERATION, error_type="cancelled")


def test_a_deadline_before_the_first_token_leaves_a_wait() -> None:
    """Nothing was decoded."""
    recorded = Recorded()
    began = recorded.clock()
    with standing_in(recorded.call):
        record = recorded.begin()
        recorded.clock.advance(2)
        record.end(DeadlineExceededError("late"))
    assert [("engine.prefill", began, began + 2)] == recorded.phases
    labels = _OPERATION | {"error_type": "DEADLINE_EXCEEDED"}
    assert 1 == recorded.metric("gen_ai_server_request_duration_seconds_count", **labels)


def test_latencies_are_measured_without_a_trace_too() -> None:
    """First token, time between tokens, and how well the reservation fitted."""
    recorded = Recorded()
    record = recorded.begin()
    record.reserved_tokens = 10
    recorded.clock.advance(0.5)
    record.output(1, None)
    recorded.clock.advance(4)
    record.output(4, EngineFinish(reason=FinishReason.LENGTH))
    record.end(None)
    assert 0.5 == recorded.metric("gen_ai_server_time_to_first_token_seconds_sum", **_OPERATION)
    assert 1 == recorded.metric("gen_ai_server_time_per_output_token_seconds_sum", **_OPERATION)
    assert 0.5 == recorded.metric("tidegate_ledger_drift_ratio_sum")
