from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.plan.memory import DoesNotFitError
from worker.plan.pace import Traffic, pace
from worker.plan.replicas import Engine, Replicas, Targets, replicas_for
from worker.sim_profile import load_profile

_TIMING = load_profile("h200-llama3-8b-awq").timing

engines = st.builds(
    Engine,
    total_blocks=st.integers(1, 100_000),
    block_size=st.just(16),
    max_running_requests=st.integers(1, 512),
    max_batched_tokens=st.integers(512, 8192),
    timing=st.just(_TIMING),
)
traffics = st.builds(
    Traffic,
    prompt_tokens=st.integers(1, 4_000),
    output_tokens=st.integers(1, 4_000),
    reserved_output_tokens=st.integers(1, 4_000),
)
targets = st.builds(Targets, kv_use=st.floats(0.1, 1), busy_share=st.floats(0.05, 0.95))
rates = st.floats(0.01, 1_000)


def _planned(engine: Engine, traffic: Traffic, target: Targets, rate: float) -> Replicas | None:
    try:
        return replicas_for(engine, traffic, target, rate)
    except DoesNotFitError:
        return None


@given(engines, traffics, targets, rates, rates)
def test_more_load_never_needs_fewer_replicas(
    engine: Engine, traffic: Traffic, target: Targets, one: float, other: float
) -> None:
    """And whether it can be served at all does not depend on how much it is."""
    less, more = (_planned(engine, traffic, target, rate) for rate in sorted((one, other)))
    assert (less is None) == (more is None)
    if less and more:
        assert less.count <= more.count


@given(engines, traffics, targets, rates)
def test_each_replica_keeps_what_was_asked(engine: Engine, traffic: Traffic, target: Targets, rate: float) -> None:
    """Blocks, batch and time; by Little's law from the rate and the stay."""
    found = _planned(engine, traffic, target, rate)
    if found is None:
        return
    each = found.pace
    blocks = each.streams * traffic.blocks(engine.block_size)
    assert blocks <= engine.total_blocks * target.kv_use * (1 + 1e-9)
    assert each.streams <= engine.max_running_requests
    assert each.busy_share <= target.busy_share
    assert each.requests_per_s * found.count >= rate * (1 - 1e-9)


@given(engines, traffics, targets, rates)
def test_more_blocks_never_need_more_replicas(engine: Engine, traffic: Traffic, target: Targets, rate: float) -> None:
    """A larger GPU is no worse."""
    larger = Engine(
        total_blocks=engine.total_blocks * 2,
        block_size=engine.block_size,
        max_running_requests=engine.max_running_requests,
        max_batched_tokens=engine.max_batched_tokens,
        timing=engine.timing,
    )
    small, large = (_planned(one, traffic, target, rate) for one in (engine, larger))
    if small:
        assert large is not None
        assert large.count <= small.count


@given(traffics, rates, rates)
def test_times_grow_with_the_load(traffic: Traffic, one: float, other: float) -> None:
    """Until the engine cannot keep up, and then they stay without an answer."""
    less, more = (pace(_TIMING, traffic, rate, max_batched_tokens=8192) for rate in sorted((one, other)))
    if more:
        assert less is not None
        assert (less.itl_s, less.ttft_s) <= (more.itl_s * (1 + 1e-9), more.ttft_s * (1 + 1e-9))
        assert less.ttft_s <= more.ttft_s * (1 + 1e-9)
