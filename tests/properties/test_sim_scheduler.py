from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from worker.sim_profile import SimProfile, StepTiming
from worker.sim_scheduler import RequestState, ScheduledRequest, Scheduler

_TIMING = StepTiming(base_s=1, prefill_token_s=0, decode_request_s=0, request_overhead_s=0)


@dataclass(frozen=True)
class _Job:
    arrives_at: int
    prompt: list[int]
    output_tokens: int
    aborted_at: int | None


_JOBS = st.lists(
    st.builds(
        _Job,
        arrives_at=st.integers(0, 30),
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=40),
        output_tokens=st.integers(1, 20),
        aborted_at=st.none() | st.integers(0, 60),
    ),
    max_size=12,
)


@given(
    jobs=_JOBS,
    # A single job of 60 tokens needs 15 blocks of 4.
    total_blocks=st.integers(15, 40),
    max_running=st.integers(1, 6),
    budget=st.integers(6, 50),
)
def test_every_request_ends_and_every_block_comes_back(
    jobs: list[_Job], total_blocks: int, max_running: int, budget: int
) -> None:
    """Whatever comes, the step keeps its bounds, every request gets its tokens in time, and the pool is whole again."""
    scheduler = Scheduler(
        SimProfile(
            name="test",
            source="",
            block_size=4,
            total_blocks=total_blocks,
            context_length=60,
            max_running_requests=max_running,
            max_batched_tokens=budget,
            timing=_TIMING,
        )
    )
    requests = [
        ScheduledRequest(tokens=list(job.prompt), prompt_tokens=len(job.prompt), ready_at=job.arrives_at)
        for job in sorted(jobs, key=lambda job: job.arrives_at)
    ]
    by_request = dict(zip(requests, sorted(jobs, key=lambda job: job.arrives_at), strict=True))
    pending = list(requests)
    now = 0
    while pending or scheduler.running_requests or scheduler.waiting_requests:
        assert now < 5_000, "it does not end"
        while pending and pending[0].ready_at <= now:
            scheduler.add(pending.pop(0))
        for request, job in by_request.items():
            if job.aborted_at == now and request not in pending:
                scheduler.remove(request)
        step = scheduler.plan(now)
        assert sum(count for _, count in step.chunks) == step.prefill_tokens + step.decode_requests <= budget
        assert scheduler.running_requests <= max_running
        assert len({id(request) for request, _ in step.chunks}) == len(step.chunks)
        assert scheduler.pool.free_blocks >= 0
        for request in scheduler.commit(step):
            request.tokens.append(now)
            if len(request.tokens) - request.prompt_tokens == by_request[request].output_tokens:
                scheduler.remove(request)
        now += 1

    assert total_blocks == scheduler.pool.free_blocks
    for request, job in by_request.items():
        assert request.state is RequestState.ENDED
        if job.aborted_at is None:
            assert job.output_tokens == len(request.tokens) - request.prompt_tokens
