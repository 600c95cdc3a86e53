from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.hedge import HedgeBudget, delay_s, idle_workers
from gateway.policy.load import WorkerLoad
from tests.fakes.worker_loads import worker_load

loads = st.builds(
    worker_load,
    free_blocks=st.integers(0, 100),
    reserved_blocks=st.integers(0, 100),
    pending_prefill_tokens=st.sampled_from([0, 10, 100]),
    is_draining=st.booleans(),
)


@given(steps=st.lists(st.booleans(), max_size=400), share=st.sampled_from([0.0, 0.01, 0.05, 0.1]))
def test_hedges_are_never_more_than_their_share_and_a_few(steps: list[bool], share: float) -> None:
    """Each step is a first token, or a request that would be hedged."""
    budget, first_tokens, hedges = HedgeBudget(share), 0, 0
    for is_overdue in steps:
        if not is_overdue:
            budget.earn()
            first_tokens += 1
        elif budget.can_hedge:
            budget.hedge()
            hedges += 1
    assert hedges <= share * first_tokens + 3 + 1e-6
    assert share or not hedges


@given(fleet=st.dictionaries(st.sampled_from("abcd"), loads), prompt_tokens=st.sampled_from([1, 10, 50]))
def test_only_idle_workers_are_asked_and_only_while_the_first_is_idle(
    fleet: dict[str, WorkerLoad], prompt_tokens: int
) -> None:
    """The first one has this prompt to compute, and no other; those asked have none."""
    idle = idle_workers(fleet, waiting_on="a", prompt_tokens=prompt_tokens)
    assert "a" not in idle
    for worker_id in idle:
        assert (0, False) == (fleet[worker_id].pending_prefill_tokens, fleet[worker_id].is_draining)
        assert 50 <= fleet[worker_id].available_blocks
    if idle:
        assert fleet["a"].pending_prefill_tokens <= prompt_tokens
        assert 50 <= fleet["a"].available_blocks


@given(rank=st.integers(0, 3), predicted_s=st.floats(0, 100), lag_s=st.floats(0, 100))
def test_a_request_that_nobody_waits_for_is_never_hedged(rank: int, predicted_s: float, lag_s: float) -> None:
    """And no other one before its first token is late beyond what is usual."""
    after_s = delay_s(rank, predicted_s=predicted_s, lag_s=lag_s)
    assert (after_s is None) == (rank >= 2)
    assert after_s is None or after_s >= max(0.1, predicted_s + lag_s)
