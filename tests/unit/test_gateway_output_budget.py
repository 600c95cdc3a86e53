from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import DeadlineTooShortError
from gateway.policy.load import WorkerLoad
from gateway.policy.output_budget import OutputBudget, OutputDemand, output_budget
from tests.fakes.worker_loads import worker_load


def load(**fields: Any) -> WorkerLoad:
    """10 requests share 1,000 output tokens per second: 10 ms per token; prefill at 10,000 tokens per second."""
    measured = {"running_requests": 10, "prefill_tokens_per_s": 10_000.0, "decode_tokens_per_s": 1_000.0}
    return worker_load(**measured | fields)


def demand(*, prompt: int = 1_000, least: int = 0, most: int = 100, may_clamp: bool = True) -> OutputDemand:
    """100 tokens behind a prompt of 1,000; fewer will do."""
    return OutputDemand(prompt_tokens=prompt, min_output_tokens=least, max_output_tokens=most, may_clamp=may_clamp)


def budget(tokens: int, *, is_clamped: bool) -> OutputBudget:
    """What is expected."""
    return OutputBudget(max_output_tokens=tokens, is_clamped=is_clamped)


def test_a_long_deadline_changes_nothing() -> None:
    """100 ms of prefill and a second of decoding fit two seconds."""
    assert budget(100, is_clamped=False) == output_budget(demand(), load(), remaining_s=2.0)


def test_a_short_deadline_clamps() -> None:
    """Of 1 s, a tenth is kept back and a tenth is prefill: 800 ms are 80 tokens."""
    assert budget(80, is_clamped=True) == output_budget(demand(), load(), remaining_s=1.0)


def test_the_prefill_of_others_comes_first() -> None:
    """4,000 tokens ahead take 400 ms."""
    assert budget(40, is_clamped=True) == output_budget(demand(), load(pending_prefill_tokens=4_000), remaining_s=1.0)


def test_an_idle_worker_gives_one_request_its_whole_rate() -> None:
    """Nothing runs, so that nothing shares."""
    assert budget(100, is_clamped=False) == output_budget(demand(), load(running_requests=0), remaining_s=1.0)


def test_the_least_output_is_tried_even_when_it_should_not_fit() -> None:
    """A prediction is no reason to answer nothing."""
    assert budget(1, is_clamped=True) == output_budget(demand(), load(), remaining_s=0.11)
    assert budget(90, is_clamped=True) == output_budget(demand(least=90), load(), remaining_s=0.11)


def test_who_will_not_see_a_first_token_is_refused() -> None:
    """100 ms of prefill for nothing; but who has seen one goes on."""
    with pytest.raises(DeadlineTooShortError) as raised:
        output_budget(demand(), load(), remaining_s=0.1)
    assert ("100", "100") == (raised.value.metadata["remaining_ms"], raised.value.metadata["first_token_ms"])
    begun = replace(demand(), has_begun=True)
    assert budget(1, is_clamped=True) == output_budget(begun, load(), remaining_s=0.1)


def test_an_output_that_may_not_be_shorter_is_not_called_clamped() -> None:
    """Reaching the limit is then the caller's own limit."""
    assert budget(100, is_clamped=False) == output_budget(demand(least=100), load(), remaining_s=0.11)


@pytest.mark.parametrize("unknown", ["prefill_tokens_per_s", "decode_tokens_per_s"])
def test_without_measured_rates_nothing_is_predicted(unknown: str) -> None:
    """A worker that has not worked yet is given the benefit of the doubt."""
    measured = load(**{unknown: 0.0})
    assert budget(100, is_clamped=False) == output_budget(demand(may_clamp=False), measured, remaining_s=0.01)


def test_a_caller_who_wants_all_or_nothing_is_refused_with_the_numbers() -> None:
    """What was left, what fits, what was asked."""
    with pytest.raises(DeadlineTooShortError) as raised:
        output_budget(demand(may_clamp=False), load(), remaining_s=1.0)
    expected = {"remaining_ms": "1000", "fitting_output_tokens": "80", "max_output_tokens": "100"}
    assert expected == raised.value.metadata
