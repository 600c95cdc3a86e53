from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway import prompt_histogram
from gateway.policy.traffic import Traffic
from gateway.prompt_histogram import PromptHistogram, stability_index
from quantizer.calibration import histogram as quantizers
from tidegate.worker.v1 import worker_service_pb2


def _traffic(*, reservoir_size: int = 0, window_requests: int = 10_000, seed: int = 0) -> Traffic:
    return Traffic(reservoir_size=reservoir_size, rng=random.Random(seed), window_requests=window_requests)


def _note(traffic: Traffic, prompt_tokens: int, turns: int = 1, *, times: int = 1, text: str | None = "") -> None:
    for _ in range(times):
        traffic.note(
            prompt_tokens=prompt_tokens, turns=turns, document=lambda: None if text is None else {"text": text}
        )


def test_gateway_and_quantizer_have_the_same_buckets() -> None:
    """The one writes what the other reads."""
    assert quantizers.PROMPT_TOKEN_EDGES == prompt_histogram.PROMPT_TOKEN_EDGES
    assert quantizers.TURN_EDGES == prompt_histogram.TURN_EDGES
    traffic = _traffic()
    prompts = [(0, 0), (31, 1), (32, 2), (100_000, 9)]
    for prompt_tokens, turns in prompts:
        _note(traffic, prompt_tokens, turns)
    assert quantizers.Histogram.of(prompts).to_json() == traffic.histogram.to_json()


def test_the_index_is_that_of_the_quantizers_report() -> None:
    """Of lengths, where turns are the same."""
    then, now = _traffic(), _traffic()
    _note(then, 40, times=60)
    _note(then, 600, times=40)
    _note(now, 40, times=10)
    _note(now, 600, times=190)
    lengths = [[sum(row) for row in traffic.histogram.counts] for traffic in (then, now)]
    expected = quantizers.population_stability_index(*lengths)
    assert expected == pytest.approx(stability_index(then.histogram, now.histogram))
    assert expected > 0.25


def test_turns_alone_move_the_index() -> None:
    """Long conversations are another population than short ones, of whatever length."""
    then, now = _traffic(), _traffic()
    _note(then, 600, 1, times=1000)
    _note(now, 600, 5, times=1000)
    assert stability_index(then.histogram, now.histogram) > 1
    assert 0 == stability_index(then.histogram, then.histogram)


def test_a_few_requests_say_nothing_of_drift() -> None:
    """From the hundredth on they do."""
    calibration, live = _traffic(), _traffic()
    _note(calibration, 40, times=100)
    _note(live, 40, times=99)
    assert live.drift(calibration.histogram) is None
    _note(live, 40)
    assert 0 == live.drift(calibration.histogram)
    assert live.drift(_traffic().histogram) is None


def test_what_the_traffic_was_long_ago_fades() -> None:
    """After two windows of other traffic, less than a third of the histogram is of the old."""
    traffic = _traffic(window_requests=100)
    _note(traffic, 40, times=150)
    _note(traffic, 600, times=200)
    old, new = traffic.histogram.counts[1][1], traffic.histogram.counts[5][1]
    assert old < new / 2
    assert traffic.histogram.total < 200


def test_the_reservoir_is_an_even_choice() -> None:
    """Each of 20 requests is in a reservoir of 5 in a quarter of 2,000 trials."""
    chosen: Counter[str] = Counter()
    for seed in range(2000):
        traffic = _traffic(reservoir_size=5, seed=seed)
        for number in range(20):
            _note(traffic, 40, text=str(number))
        chosen.update(document["text"] for document in traffic.reservoir)
    assert all(400 < count < 600 for count in chosen.values()), chosen
    assert 20 == len(chosen)


def test_what_the_reservoir_cannot_hold_takes_no_place() -> None:
    """And is counted all the same."""
    traffic = _traffic(reservoir_size=2)
    _note(traffic, 40, text=None, times=50)
    _note(traffic, 40, text="a")
    _note(traffic, 40, text="b")
    assert ["a", "b"] == [document["text"] for document in traffic.reservoir]
    assert 52 == traffic.histogram.total


def test_without_a_reservoir_no_text_is_looked_at() -> None:
    """The default."""

    def look() -> None:
        raise AssertionError("looked at")

    traffic = _traffic()
    traffic.note(prompt_tokens=40, turns=1, document=look)
    assert () == traffic.reservoir


def test_a_calibration_with_other_buckets_is_not_compared() -> None:
    """A worker of another release may have them."""
    calibration = worker_service_pb2.PromptHistogram(
        prompt_token_edges=prompt_histogram.PROMPT_TOKEN_EDGES,
        turn_edges=prompt_histogram.TURN_EDGES,
        counts=range(55),
    )
    response = worker_service_pb2.GetModelResponse(calibration=calibration)
    read = PromptHistogram.from_handshake(response)
    assert read is not None
    assert (5, 6, 7, 8, 9) == read.counts[1]
    response.calibration.turn_edges[0] = 2
    assert PromptHistogram.from_handshake(response) is None
    assert PromptHistogram.from_handshake(worker_service_pb2.GetModelResponse()) is None
