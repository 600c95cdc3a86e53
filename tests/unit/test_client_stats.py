from __future__ import annotations

import pytest

from tidegate.client.stats import StreamMeter
from tidegate.inference.v1.generation_pb2 import FINISH_REASON_LENGTH, Delta, Finished, Started, Usage


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _meter_of(*arrivals: tuple[float, Started | Delta | Finished]) -> StreamMeter:
    clock = _Clock()
    meter = StreamMeter(clock)
    for at, event in arrivals:
        clock.now = at
        meter.observe(event)
    return meter


def _delta(tokens: int) -> Delta:
    return Delta(text=["x"] * tokens, token_ids=[1] * tokens)


def test_times_are_those_of_arrival() -> None:
    """TTFT ends with Started; the first delta opens no gap; a delta of two tokens shares its gap between them."""
    finished = Finished(reason=FINISH_REASON_LENGTH, usage=Usage(output_token_count=4, kv_block_count=2))
    meter = _meter_of((0.5, Started()), (0.5, _delta(1)), (0.6, _delta(1)), (1.0, _delta(2)), (2.0, finished))

    stats = meter.stats()

    assert pytest.approx(0.5) == stats.ttft_s
    assert pytest.approx(0.2) == stats.itl_p50_s
    assert pytest.approx(2.0) == stats.tokens_per_s
    assert (4, 2, "length") == (stats.output_tokens, stats.kv_blocks, stats.finish_reason)


def test_one_token_has_no_gap() -> None:
    """A median of nothing is not zero."""
    assert _meter_of((0.1, Started()), (0.1, _delta(1)), (0.2, Finished())).stats().itl_p50_s is None


def test_an_unfinished_stream_has_no_statistics() -> None:
    """They would be of something else than an answer."""
    with pytest.raises(ValueError, match="not finished"):
        _meter_of((0.1, Started())).stats()
