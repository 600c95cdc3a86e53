from __future__ import annotations

from worker.sim_profile import SimProfile, StepTiming
from worker.sim_scheduler import RequestState, ScheduledRequest, Scheduler


def _scheduler(*, total_blocks: int = 100, max_running: int = 8, budget: int = 16) -> Scheduler:
    timing = StepTiming(base_s=1, prefill_token_s=0, decode_request_s=0, request_overhead_s=0)
    return Scheduler(
        SimProfile(
            name="test",
            source="",
            block_size=4,
            total_blocks=total_blocks,
            context_length=400,
            max_running_requests=max_running,
            max_batched_tokens=budget,
            timing=timing,
        )
    )


def _request(prompt_tokens: int, *, first: int = 0, ready_at: float = 0) -> ScheduledRequest:
    return ScheduledRequest(
        tokens=list(range(first, first + prompt_tokens)), prompt_tokens=prompt_tokens, ready_at=ready_at
    )


def _step(scheduler: Scheduler, now: float = 0) -> list[int]:
    """Run one step, give every complete request a token; returns the chunk sizes."""
    step = scheduler.plan(now)
    for request in scheduler.commit(step):
        request.tokens.append(0)
    return [count for _, count in step.chunks]


def test_long_prompt_is_computed_in_chunks_beside_decodes() -> None:
    """A running request gets its token in every step; a long prompt takes what is left of the budget."""
    scheduler = _scheduler()
    scheduler.add(_request(4))
    scheduler.add(_request(40, first=100))

    assert [[4, 12], [1, 15], [1, 13], [1, 1]] == [_step(scheduler) for _ in range(4)]


def test_request_is_not_taken_before_it_is_ready() -> None:
    """The way through the front end takes its time."""
    scheduler = _scheduler()
    scheduler.add(_request(4, ready_at=5))

    assert ([], 5, [4]) == (_step(scheduler, 4), scheduler.next_ready_at, _step(scheduler, 5))


def test_prefix_of_a_running_request_is_shared() -> None:
    """A second request holds the same blocks and computes only its own rest."""
    scheduler = _scheduler()
    scheduler.add(_request(12))
    _step(scheduler)
    second = _request(12)
    scheduler.add(second)

    assert [1, 4] == _step(scheduler)
    assert 8 == second.cached_tokens


def test_request_waits_until_its_whole_prompt_fits() -> None:
    """No prompt is begun that could not be finished, though its first chunk would fit."""
    scheduler = _scheduler(total_blocks=10)
    scheduler.add(_request(24))
    scheduler.add(_request(20, first=100))

    assert [16] == _step(scheduler)
    assert [8] == _step(scheduler)
    assert 1 == scheduler.waiting_requests


def test_youngest_is_preempted_and_computed_anew() -> None:
    """Out of blocks, the younger of two loses its own; it comes back first and with the same tokens."""
    scheduler = _scheduler(total_blocks=4)
    old, young = _request(7), _request(8, first=100)
    scheduler.add(old)
    scheduler.add(young)
    for _ in range(2):
        _step(scheduler)

    assert (1, RequestState.WAITING, []) == (scheduler.preemptions, young.state, young.blocks)
    assert (RequestState.RUNNING, 9) == (old.state, len(young.tokens))
    scheduler.remove(old)
    assert [1] == _step(scheduler)  # its two full blocks were still in the cache
    assert 0 == young.cached_tokens


def test_removal_during_a_step_frees_blocks_at_once() -> None:
    """A request that is removed while its step runs gets no token, and holds nothing."""
    scheduler = _scheduler(total_blocks=4)
    request = _request(8)
    scheduler.add(request)
    step = scheduler.plan(0)
    scheduler.remove(request)

    assert 4 == scheduler.pool.free_blocks
    assert [] == scheduler.commit(step)
